# What the configuration names must be there when it is read, not when the last job needs it.
#
# Asked once, in the process that was started, not in its jobs. Files that a rule makes are left out; a workflow that
# has this one as a module may define such rules later, so there only the jobs say what is missing (user_file).

IS_OWN_WORKFLOW = Path(workflow.main_snakefile).resolve().parent == ROOT.resolve()

if workflow.is_main_process:
    from dpuflow.workflow.network_checks import unfit_networks
    from dpuflow.workflow.user_files import missing

    faults = missing(config, ROOT / "config/config.schema.yaml", is_made) if IS_OWN_WORKFLOW else []
    faults += unfit_networks(config)
    if faults:
        raise WorkflowError("config: " + "\n        ".join(faults))
