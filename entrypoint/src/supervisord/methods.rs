//! The methods, as `system.listMethods` and its kin tell of them.

pub struct Method {
    pub name: &'static str,
    /// The type of the answer, then those of the parameters.
    pub signature: &'static [&'static str],
    pub help: &'static str,
}

const fn method(
    name: &'static str,
    signature: &'static [&'static str],
    help: &'static str,
) -> Method {
    Method {
        name,
        signature,
        help,
    }
}

/// Sorted by name.
pub const METHODS: &[Method] = &[
    method(
        "supervisor.addProcessGroup",
        &["boolean", "string"],
        "Starts to supervise a group that the last reread found.",
    ),
    method(
        "supervisor.clearAllProcessLogs",
        &["array"],
        "Forgets the recent lines of all processes.",
    ),
    method(
        "supervisor.clearLog",
        &["boolean"],
        "Forgets the recent messages of the supervisor.",
    ),
    method(
        "supervisor.clearProcessLog",
        &["boolean", "string"],
        "As clearProcessLogs.",
    ),
    method(
        "supervisor.clearProcessLogs",
        &["boolean", "string"],
        "Forgets the recent lines of a process.",
    ),
    method(
        "supervisor.getAPIVersion",
        &["string"],
        "The version of this interface.",
    ),
    method(
        "supervisor.getAllConfigInfo",
        &["array"],
        "What the configuration says of each process.",
    ),
    method(
        "supervisor.getAllProcessInfo",
        &["array"],
        "The state of each process.",
    ),
    method(
        "supervisor.getIdentification",
        &["string"],
        "The identifier of [supervisord].",
    ),
    method(
        "supervisor.getPID",
        &["int"],
        "The process id of the supervisor.",
    ),
    method(
        "supervisor.getProcessInfo",
        &["struct", "string"],
        "The state of one process.",
    ),
    method(
        "supervisor.getState",
        &["struct"],
        "The state of the supervisor.",
    ),
    method(
        "supervisor.getSupervisorVersion",
        &["string"],
        "The version of supervisord that this interface is like.",
    ),
    method("supervisor.getVersion", &["string"], "As getAPIVersion."),
    method(
        "supervisor.readLog",
        &["string", "int", "int"],
        "Recent messages of the supervisor, from an offset.",
    ),
    method(
        "supervisor.readMainLog",
        &["string", "int", "int"],
        "As readLog.",
    ),
    method(
        "supervisor.readProcessLog",
        &["string", "string", "int", "int"],
        "As readProcessStdoutLog.",
    ),
    method(
        "supervisor.readProcessStderrLog",
        &["string", "string", "int", "int"],
        "Recent errors of a process, from an offset.",
    ),
    method(
        "supervisor.readProcessStdoutLog",
        &["string", "string", "int", "int"],
        "Recent output of a process, from an offset.",
    ),
    method(
        "supervisor.reloadConfig",
        &["array"],
        "Reads the configuration again; answers [[added, changed, removed]].",
    ),
    method(
        "supervisor.removeProcessGroup",
        &["boolean", "string"],
        "Supervises a stopped group no longer.",
    ),
    method(
        "supervisor.restart",
        &["boolean"],
        "Stops all processes, reads the configuration, starts them.",
    ),
    method(
        "supervisor.sendProcessStdin",
        &["boolean", "string", "string"],
        "Writes to the standard input of a process.",
    ),
    method(
        "supervisor.sendRemoteCommEvent",
        &["boolean", "string", "string"],
        "Sends an event to listeners.",
    ),
    method(
        "supervisor.shutdown",
        &["boolean"],
        "Stops everything and ends.",
    ),
    method(
        "supervisor.signalAllProcesses",
        &["array", "string"],
        "Sends a signal to all processes.",
    ),
    method(
        "supervisor.signalProcess",
        &["boolean", "string", "string"],
        "Sends a signal to a process.",
    ),
    method(
        "supervisor.signalProcessGroup",
        &["array", "string", "string"],
        "Sends a signal to the processes of a group.",
    ),
    method(
        "supervisor.startAllProcesses",
        &["array", "boolean"],
        "Starts all processes that do not run.",
    ),
    method(
        "supervisor.startProcess",
        &["boolean", "string", "boolean"],
        "Starts a process; answers when it runs, unless the flag is false.",
    ),
    method(
        "supervisor.startProcessGroup",
        &["array", "string", "boolean"],
        "Starts the processes of a group.",
    ),
    method(
        "supervisor.stopAllProcesses",
        &["array", "boolean"],
        "Stops all processes that run.",
    ),
    method(
        "supervisor.stopProcess",
        &["boolean", "string", "boolean"],
        "Stops a process; answers when it has ended, unless the flag is false.",
    ),
    method(
        "supervisor.stopProcessGroup",
        &["array", "string", "boolean"],
        "Stops the processes of a group.",
    ),
    method(
        "supervisor.tailProcessLog",
        &["array", "string", "int", "int"],
        "As tailProcessStdoutLog.",
    ),
    method(
        "supervisor.tailProcessStderrLog",
        &["array", "string", "int", "int"],
        "[text, offset, overflow] of the errors of a process.",
    ),
    method(
        "supervisor.tailProcessStdoutLog",
        &["array", "string", "int", "int"],
        "[text, offset, overflow] of the output of a process.",
    ),
    method(
        "system.listMethods",
        &["array"],
        "The names of all methods.",
    ),
    method(
        "system.methodHelp",
        &["string", "string"],
        "What a method does.",
    ),
    method(
        "system.methodSignature",
        &["array", "string"],
        "The types of a method's answer and parameters.",
    ),
    method(
        "system.multicall",
        &["array", "array"],
        "Several calls in one; each answers in its place.",
    ),
];

pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_supervisords_methods_in_order() {
        assert!(METHODS.is_sorted_by_key(|method| method.name));
        let of = |prefix: &str| {
            METHODS
                .iter()
                .filter(|m| m.name.starts_with(prefix))
                .count()
        };
        assert_eq!((of("supervisor."), of("system.")), (37, 4));
    }
}
