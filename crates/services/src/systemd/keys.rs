//! Keys of units that are known and do nothing here.

use crate::text::boolean;

/// Without effect in a box, and the service would behave otherwise with it: named at each start.
/// Prefixes, and the value that changes nothing.
const MISSED: &[(&str, &str)] = &[
    ("Assert", ""),
    ("Condition", ""),
    ("ConfigurationDirectory", ""),
    ("DynamicUser", "no"),
    ("ExitType", "main"),
    ("FailureAction", "none"),
    ("FinalKillSignal", "SIGKILL"),
    ("GuessMainPID", "yes"),
    ("ImportCredential", ""),
    ("JobTimeout", "infinity"),
    ("LimitRTTIME", "infinity"),
    ("LoadCredential", ""),
    ("NonBlocking", "no"),
    ("OnFailure", ""),
    ("OnSuccess", ""),
    ("PAMName", ""),
    ("PassEnvironment", ""),
    ("Requisite", ""),
    ("RestartKillSignal", ""),
    ("RestartMaxDelaySec", ""),
    ("RestartSteps", ""),
    ("Root", ""),
    ("RuntimeMaxSec", "infinity"),
    ("SendSIGHUP", "no"),
    ("SendSIGKILL", "yes"),
    ("SetCredential", ""),
    ("Sockets", ""),
    ("StandardInputData", ""),
    ("StandardInputText", ""),
    ("StartLimitAction", "none"),
    ("StopPropagatedFrom", ""),
    ("SuccessAction", "none"),
    ("TimeoutAbort", ""),
    ("TimeoutStartFailureMode", "terminate"),
    ("TimeoutStopFailureMode", "terminate"),
    ("UnsetEnvironment", ""),
    ("Upholds", ""),
    ("WatchdogSignal", "SIGABRT"),
];

/// Whether the service would behave otherwise with this assignment.
pub(super) fn is_missed(key: &str, value: &str) -> bool {
    // A file or a socket in the place of the container's log.
    if key.starts_with("Standard") && (value.contains(':') || value == "socket") {
        return true;
    }
    let found = MISSED.iter().find(|(prefix, _)| key.starts_with(prefix));
    let is_default = |default: &str| {
        value == default || (boolean(value).is_some() && boolean(value) == boolean(default))
    };
    !value.is_empty() && found.is_some_and(|(_, default)| !is_default(default))
}

/// It is such a key, whatever its value.
pub(super) fn is_known(key: &str) -> bool {
    MISSED.iter().any(|(prefix, _)| key.starts_with(prefix))
}

/// Understood, without effect in a box: the container is the sandbox and has the limits, its log is
/// the log, and no manager is there to be told. Prefixes, so that a newer key of the same family is
/// not reported as a typo.
pub(super) const NOT_APPLIED: &[&str] = &[
    "AppArmorProfile",
    "Bind",
    "BlockIO",
    "CPU",
    "Capabilit",
    "Coredump",
    "DefaultDependencies",
    "DeviceAllow",
    "DevicePolicy",
    "Delegate",
    "ExecPaths",
    "FileDescriptorStoreMax",
    "IO",
    "IP",
    "IgnoreSIGPIPE",
    "InaccessiblePaths",
    "KeyringMode",
    "LockPersonality",
    "LogRateLimit",
    "Memory",
    "Mount",
    "NUMA",
    "NetworkNamespacePath",
    "NoExecPaths",
    "NotifyAccess",
    "OOMPolicy",
    "OwnUser",
    "Personality",
    "Private",
    "ProcSubset",
    "Protect",
    "ReadOnly",
    "ReadWrite",
    "RefuseManual",
    "RemoveIPC",
    "Restrict",
    "SELinuxContext",
    "SecureBits",
    "Slice",
    "SmackProcessLabel",
    "Standard",
    "Syslog",
    "SystemCall",
    "TTY",
    "Tasks",
    "TemporaryFileSystem",
    "TimerSlack",
    "UtmpIdentifier",
    "UtmpMode",
    "X-",
];

/// About the unit, for people and other unit types; nothing is lost without them.
pub(super) const INFORMATION: &[&str] = &[
    "Documentation",
    "SourcePath",
    "Conflicts",
    "RequiresMountsFor",
    "StopWhenUnneeded",
    "IgnoreOnIsolate",
    "AllowIsolate",
    "PropagatesReloadTo",
    "ReloadPropagatedFrom",
    "BusName",
    "CollectMode",
    "JoinsNamespaceOf",
];
