"""What dpuflow does on the board's side of an SSH connection; copied there and run as a program.

Python 3.6 or later, standard library only, no import of dpuflow. Called as
``python3 agent.py COMMAND JSON``; answers with JSON on standard output (`results`: a
tar). Everything lies below one folder: bundles/DIGEST/ (unpacked), parts/DIGEST (a
transfer under way), jobs/JOB/ (status.json, log.txt, results/).
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

LOG_TAIL = 4000


def _write_json(path, data):
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(data, stream)
    os.replace(temporary, path)


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# ---- the board's lock: a directory, because making one is atomic everywhere


def _owner(lock):
    return _read_json(os.path.join(lock, "owner.json")) or {}


def lock(lock, token, owner, job, stale_after, folder):
    """Take the board's lock, or say who holds it.

    A lock is stale when nobody refreshed it for `stale_after` seconds and the job that
    it was taken for is not running any more, or is the very job of the asker (whose
    computer went away and came back).
    """
    taken_over, busy = None, {"held": False, "owner": None, "age": 0.0}
    for _ in range(3):
        try:
            os.mkdir(lock)
        except FileExistsError:
            held = _owner(lock)
            try:
                age = time.time() - os.stat(lock).st_mtime
            except OSError:
                continue  # gone in between
            running = "job" in held and _alive(_job_folder(held["folder"], held["job"]))
            if held.get("token") == token:
                os.utime(lock)
                return {"held": True, "taken_over": taken_over}
            busy = {"held": False, "owner": held.get("owner"), "age": age}
            if age < stale_after or (running and held.get("job") != job):
                return busy
            aside = f"{lock}.stale.{os.getpid()}"
            try:
                os.rename(lock, aside)  # only one of several takers succeeds
            except OSError:
                continue
            shutil.rmtree(aside, ignore_errors=True)
            taken_over = held.get("owner")
            continue
        content = {"token": token, "owner": owner, "job": job, "folder": os.path.abspath(folder)}
        _write_json(os.path.join(lock, "owner.json"), content)
        os.chmod(lock, 0o755)  # other users of the board may see who has it
        os.chmod(os.path.join(lock, "owner.json"), 0o644)
        return {"held": True, "taken_over": taken_over}
    return busy


def _refresh(lock, token):
    if _owner(lock).get("token") != token:
        return False
    os.utime(lock)
    return True


def unlock(lock, token):
    """Give the lock back, if it is still ours."""
    if _owner(lock).get("token") == token:
        shutil.rmtree(lock, ignore_errors=True)
    return {}


# ---- the bundle


def received(folder, digest):
    """How much of a bundle is here: {"complete"} or {"size", "sha256"} of the part that is."""
    if os.path.isdir(os.path.join(folder, "bundles", digest)):
        return {"complete": True}
    part = os.path.join(folder, "parts", digest)
    if not os.path.exists(part):
        return {"complete": False, "size": 0, "sha256": None}
    digest, size = hashlib.sha256(), 0
    with open(part, "rb") as stream:  # counted while reading: a dying transfer may still add to it
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return {"complete": False, "size": size, "sha256": digest.hexdigest()}


def receive(folder, digest, offset, size, lock, token):
    """Append standard input to the part from `offset` on; unpack it when all `size` bytes are there."""
    os.makedirs(os.path.join(folder, "parts"), exist_ok=True)
    part = os.path.join(folder, "parts", digest)
    refreshed = 0.0
    with open(part, "r+b" if os.path.exists(part) else "w+b") as stream:
        _wait_for_writer(stream)
        stream.truncate(offset)
        stream.seek(offset)
        for block in iter(lambda: sys.stdin.buffer.read1(1 << 16), b""):
            stream.write(block)
            stream.flush()  # what has arrived stays, should the connection drop
            if time.time() - refreshed > 2 and _refresh(lock, token):
                refreshed = time.time()
    return unpack(folder, digest) if os.path.getsize(part) == size else {"complete": False}


def _wait_for_writer(stream, seconds=5.0):
    """Let the writer of a dropped connection end first; the checksum catches one that does not."""
    end = time.time() + seconds
    while time.time() < end:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            time.sleep(0.1)


def unpack(folder, digest):
    """Check the received tar and unpack it to bundles/DIGEST; {"complete": False} if it is damaged."""
    part = os.path.join(folder, "parts", digest)
    if _sha256(part) != digest:
        os.remove(part)
        return {"complete": False}
    bundles = os.path.join(folder, "bundles")
    temporary = os.path.join(bundles, f".{digest}.{os.getpid()}")
    os.makedirs(temporary, exist_ok=True)
    with tarfile.open(part) as archive:
        for member in archive.getmembers():
            parts = member.name.split("/")
            if not member.isfile() or member.name.startswith("/") or ".." in parts:
                raise ValueError(f"the bundle holds {member.name!r}, which is no plain file below it")
            target = os.path.join(temporary, *parts[-1:])
            with open(target, "wb") as stream:
                shutil.copyfileobj(archive.extractfile(member), stream)
    os.rename(temporary, os.path.join(bundles, digest))
    os.remove(part)
    return {"complete": True}


def query(folder, digest):
    """What `app.py --query` of the bundle prints."""
    app = os.path.join(folder, "bundles", digest, "app.py")
    process = subprocess.Popen(
        [sys.executable, app, "--query"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, message = process.communicate(timeout=120)
    if process.returncode:
        return {"error": message.decode("utf-8", "replace")[-LOG_TAIL:]}
    return {"board": json.loads(output.decode("utf-8"))}


# ---- the job


def _job_folder(folder, job):
    return os.path.join(folder, "jobs", job)


def _ticks(pid):
    """Start time of a process in clock ticks since boot; None when it is dead or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _boot():
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _alive(place):
    process = _read_json(os.path.join(place, "process.json"))
    return bool(process) and process["boot"] == _boot() and _ticks(process["pid"]) == process["ticks"]


def start(folder, job, digest, options):
    """Start the application detached, unless the job runs or has ended already."""
    place = _job_folder(folder, job)
    status = _read_json(os.path.join(place, "status.json")) or {}
    if _alive(place):
        return {"started": False, "state": "running"}
    if status.get("state") == "done":
        return {"started": False, "state": "done"}
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    bundle = os.path.abspath(os.path.join(folder, "bundles", digest))
    command = [sys.executable, os.path.join(bundle, "app.py"), "--bundle", bundle]
    command += ["--out", "results", "--status", os.path.abspath(os.path.join(place, "status.json"))]
    with open(os.path.join(place, "log.txt"), "wb") as log:
        process = subprocess.Popen(
            command + options,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it outlives the connection
        )
    identity = {"pid": process.pid, "ticks": _ticks(process.pid), "boot": _boot()}
    _write_json(os.path.join(place, "process.json"), identity)
    return {"started": True, "state": "running"}


def poll(folder, job, lock, token, wait):
    """State of a job, at once when it has ended, else after `wait` seconds; keeps the lock fresh.

    Waiting here and not at the caller spares the board a login every second, which would
    show in its latencies.
    """
    place, end, refreshed = _job_folder(folder, job), time.time() + wait, 0.0
    while True:
        alive = _alive(place)  # before the status: a job that ends in between has written it by then
        status = _read_json(os.path.join(place, "status.json")) or {}
        if time.time() - refreshed >= 2:
            held, refreshed = _refresh(lock, token), time.time()
        if not held or not alive or status.get("state") in ("done", "failed") or time.time() >= end:
            break
        time.sleep(min(0.2, wait))
    answer = {"held": held, "alive": alive, "status": status, "log": ""}
    if not alive:
        try:
            with open(os.path.join(place, "log.txt"), "rb") as stream:
                answer["log"] = stream.read().decode("utf-8", "replace")[-LOG_TAIL:]
        except OSError:
            pass
    return answer


def results(folder, job):
    """Write the results as a tar with a manifest of checksums to standard output."""
    place = os.path.join(_job_folder(folder, job), "results")
    paths = [os.path.join(root, name) for root, _, files in os.walk(place) for name in files]
    names = sorted(os.path.relpath(path, place) for path in paths)
    sums = {name: _sha256(os.path.join(place, name)) for name in names}
    manifest = json.dumps(sums).encode("utf-8")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("MANIFEST.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
        for name in names:
            archive.add(os.path.join(place, name), arcname=name)


def stop(folder, job):
    """Kill a running job with its children."""
    place = _job_folder(folder, job)
    if _alive(place):
        pid = _read_json(os.path.join(place, "process.json"))["pid"]
        os.killpg(pid, signal.SIGKILL)
        for _ in range(50):
            if not _alive(place):
                break
            time.sleep(0.1)
    return {"alive": _alive(place)}


def clean(folder, job, digest, keep):
    """Remove the job and all but the `keep` newest bundles (`digest` counts as newest)."""
    shutil.rmtree(_job_folder(folder, job), ignore_errors=True)
    bundles = os.path.join(folder, "bundles")
    if os.path.isdir(os.path.join(bundles, digest)):
        os.utime(os.path.join(bundles, digest))
    names = os.listdir(bundles) if os.path.isdir(bundles) else []
    names.sort(key=lambda name: os.stat(os.path.join(bundles, name)).st_mtime, reverse=True)
    for name in names[keep:]:
        shutil.rmtree(os.path.join(bundles, name), ignore_errors=True)
    return {}


COMMANDS = {
    function.__name__: function
    for function in (lock, unlock, received, receive, query, start, poll, results, stop, clean)
}


def main(words):
    """Run one command and print its answer."""
    os.umask(0o077)
    answer = COMMANDS[words[0]](**json.loads(words[1]))
    if answer is not None:
        print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
