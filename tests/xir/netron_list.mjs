// Opens a model with Netron's own code, without a window, and prints what Netron would show as JSON.
// usage: node netron_list.mjs <folder of the netron package> <model file>
import * as fs from 'fs';
import * as path from 'path';
import { pathToFileURL } from 'url';

const [folder, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(folder, name)).href);
const view = await load('view.js');
const { FileStream } = await load('node.js');

const host = {
    environment: () => null,
    require: async (id) => await load(`${id.replace(/^\.\//, '')}.js`),
    asset: async (id) => fs.readFileSync(path.join(folder, id), 'utf-8'),
    event: () => {},
    exception: (error) => { throw error; }
};

const stat = fs.statSync(file);
const context = {
    identifier: path.basename(file),
    stream: new FileStream(file, 0, stat.size, stat.mtimeMs),
    entries: new Map(),
    require: host.require,
    asset: host.asset,
    request: async () => { throw new Error('no other file may be asked for'); },
    error: (error) => { throw error; }
};

const model = await new view.ModelFactoryService(host).open(context);
const plain = (value) => {
    if (value instanceof Uint8Array) {
        return `${value.length} bytes`;
    }
    if (typeof value === 'bigint') {
        return value.toString();
    }
    return ArrayBuffer.isView(value) ? Array.from(value) : value;
};
const graph = model.modules[0];
const values = (argument) => argument.value.map((value) => ({
    name: value.name,
    type: value.type ? value.type.toString() : null,
    denotation: value.type && value.type.denotation ? value.type.denotation : null,
    bytes: value.initializer && value.initializer.values ? value.initializer.values.length : null
}));
console.log(JSON.stringify({
    format: model.format,
    name: model.name,
    producer: model.producer,
    inputs: graph.inputs.map((argument) => argument.name),
    nodes: graph.nodes.map((node) => ({
        name: node.name,
        type: node.type.name,
        device: node.device || null,
        chain: node.chain.map((next) => next.type.name),
        attributes: Object.fromEntries(node.attributes.map((argument) => [argument.name, plain(argument.value)])),
        inputs: Object.fromEntries(node.inputs.map((argument) => [argument.name, values(argument)])),
        outputs: node.outputs.flatMap(values)
    }))
}));
