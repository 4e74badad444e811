//! Kubernetes, and `podman kube play` with it: a Deployment of one box with its claims,
//! secret and service.

use super::describe::{Description, Part, Value};
use super::quote::yaml;
use super::text::{Text, after, head};
use crate::exit::Result;

/// Where the secret is mounted; /run/secrets is the cluster's own.
const SECRETS: &str = "/etc/box-secrets";
/// Seconds between two probes at the start.
const PERIOD: u64 = 5;

pub fn write(d: &Description) -> Result<String> {
    let mut text = head(
        d,
        "for Kubernetes and podman kube play",
        "kubernetes",
        "box.yaml",
        "#",
    );
    text.line("# Start and upgrade: kubectl apply -f box.yaml");
    let whole = d.parts.iter().all(|part| part.role.is_none());
    if !whole {
        text.line("# Boxes of roles keep nothing: databases are elsewhere.");
    }
    for mount in d.volumes.iter().filter(|_| whole) {
        begin(
            &mut text,
            "v1",
            "PersistentVolumeClaim",
            &format!("{}-{}", d.name, mount.name),
        );
        text.lines(["spec:", "  accessModes: [ReadWriteOnce]"]);
        text.line("  resources: {requests: {storage: 20Gi}}  # as much as the data needs, and as much again for safety copies");
    }
    if !d.secrets.is_empty() {
        begin(&mut text, "v1", "Secret", &format!("{}-secrets", d.name));
        text.line("type: Opaque")
            .line("stringData:  # the box refuses to start while one is empty");
        for secret in &d.secrets {
            text.line(&format!("  {}: \"\"{}", secret.name, after(&secret.note)));
        }
    }
    for part in &d.parts {
        workload(&mut text, d, part);
        if part.ports.is_empty() {
            continue;
        }
        begin(&mut text, "v1", "Service", &part.name);
        text.line("spec:")
            .line(&format!("  selector: {{app: {}}}", part.name))
            .line("  ports:");
        for port in &part.ports {
            text.line(&format!(
                "    - {{name: port-{port}, port: {port}, targetPort: {port}}}"
            ));
        }
    }
    Ok(text.end())
}

fn begin(text: &mut Text, version: &str, kind: &str, name: &str) {
    text.line("---");
    text.line(&format!("apiVersion: {version}"))
        .line(&format!("kind: {kind}"));
    text.line("metadata:").line(&format!("  name: {name}"));
}

/// A Deployment, or a Job for what ends.
fn workload(text: &mut Text, d: &Description, part: &Part) {
    let name = &part.name;
    if part.job {
        // A Job cannot be changed: each version has its own.
        let version: String = d
            .version
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(20)
            .collect();
        let job = format!("{name}-{}", version.trim_matches('-'));
        begin(text, "batch/v1", "Job", job.trim_end_matches('-'));
        text.line(&format!("  labels: {{app: {name}}}"));
        text.lines(["spec:", "  backoffLimit: 10"]);
    } else {
        begin(text, "apps/v1", "Deployment", name);
        text.line(&format!("  labels: {{app: {name}}}"));
        text.line("spec:")
            .line(&format!("  replicas: {}", part.replicas));
        text.line(match (part.role.is_none(), part.single) {
            (true, _) => "  strategy: {type: Recreate}  # two boxes never share a volume",
            (_, true) => "  strategy: {type: Recreate}  # never two at a time",
            _ => {
                "  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"
            }
        });
        text.line(&format!("  selector: {{matchLabels: {{app: {name}}}}}"));
    }
    text.line("  template:")
        .line("    metadata:")
        .line(&format!("      labels: {{app: {name}}}"));
    text.line("    spec:")
        .line(&format!("      terminationGracePeriodSeconds: {}", d.grace));
    if part.job {
        text.line("      restartPolicy: OnFailure");
    }
    text.lines([
        "      automountServiceAccountToken: false",
        "      enableServiceLinks: false",
    ]);
    text.line("      containers:")
        .line(&format!("        - name: {name}"));
    text.line(&format!("          image: {}", yaml(&d.image)));
    text.line("          imagePullPolicy: IfNotPresent");
    if !part.ports.is_empty() {
        text.line("          ports:");
        for port in &part.ports {
            text.line(&format!("            - {{containerPort: {port}}}"));
        }
    }
    environment(text, d, part);
    if !part.job {
        probes(text, d);
    }
    security(text, d);
    resources(text, d);
    if d.volumes.is_empty() && d.secrets.is_empty() {
        return;
    }
    text.line("          volumeMounts:");
    for mount in &d.volumes {
        text.line(&format!(
            "            - {{name: {}, mountPath: {}}}",
            mount.name,
            yaml(&mount.path)
        ));
    }
    if !d.secrets.is_empty() {
        text.line(&format!(
            "            - {{name: secrets, mountPath: {SECRETS}, readOnly: true}}"
        ));
    }
    text.line("      volumes:");
    for mount in &d.volumes {
        text.line(&format!("        - name: {}", mount.name));
        text.line(&match part.role {
            None => format!(
                "          persistentVolumeClaim: {{claimName: {}-{}}}",
                d.name, mount.name
            ),
            Some(_) => "          emptyDir: {medium: Memory}".to_owned(),
        });
    }
    if !d.secrets.is_empty() {
        // podman 4.3 does not survive it when nobody says whether the secret is optional.
        text.line("        - name: secrets").line(&format!(
            "          secret: {{secretName: {}-secrets, optional: false, defaultMode: 256}}  # 0400, which YAML 1.2 reads as four hundred",
            d.name
        ));
    }
}

fn environment(text: &mut Text, d: &Description, part: &Part) {
    text.line("          env:");
    for (name, value) in part.settings() {
        text.line(&format!(
            "            - {{name: {name}, value: {}}}",
            expanded(&value)
        ));
    }
    for line in &d.settings {
        let (name, note) = (&line.name, after(&line.note));
        text.line(&match &line.value {
            Value::Given(value) => format!(
                "            - {{name: {name}, value: {}}}{note}",
                expanded(value)
            ),
            Value::Required => {
                format!("            - {{name: {name}, value: \"\"}}  # REQUIRED{note}")
            }
            Value::Default(value) => format!(
                "            # - {{name: {name}, value: {}}}{note}",
                expanded(value)
            ),
        });
    }
    for secret in &d.secrets {
        let name = &secret.name;
        text.line(&format!(
            "            - {{name: {name}_FILE, value: {SECRETS}/{name}}}"
        ));
    }
}

/// `$(NAME)` is a reference in a value, `$$` a dollar sign.
fn expanded(value: &str) -> String {
    yaml(&value.replace("$(", "$$("))
}

fn probes(text: &mut Text, d: &Description) {
    let asks = |what: &str| format!("exec: {{command: [tiffin, health, {what}]}}");
    text.line("          startupProbe:  # databases, migrations, then everybody else");
    text.line(&format!("            {}", asks("--started")));
    text.line(&format!("            periodSeconds: {PERIOD}"));
    text.line(&format!(
        "            failureThreshold: {}",
        d.start.div_ceil(PERIOD)
    ));
    text.line("            timeoutSeconds: 5");
    for (probe, question) in [("livenessProbe", "--live"), ("readinessProbe", "--ready")] {
        text.line(&format!("          {probe}:"))
            .line(&format!("            {}", asks(question)));
        text.lines([
            "            periodSeconds: 10",
            "            timeoutSeconds: 5",
        ]);
    }
}

fn security(text: &mut Text, d: &Description) {
    text.line("          securityContext:")
        .line("            allowPrivilegeEscalation: false");
    if d.read_only {
        text.line("            readOnlyRootFilesystem: true");
    }
    text.line("            seccompProfile: {type: RuntimeDefault}");
    text.line(&format!(
        "            capabilities: {{drop: [ALL], add: [{}]}}",
        d.capabilities.join(", ")
    ));
}

fn resources(text: &mut Text, d: &Description) {
    let memory = d.memory.map(|memory| format!("memory: {memory}Mi"));
    let cpus = d.cpus.as_ref().map(|cpus| format!("cpu: {}", yaml(cpus)));
    let limits: Vec<String> = memory.into_iter().chain(cpus).collect();
    if !limits.is_empty() {
        text.line(&format!(
            "          resources: {{limits: {{{0}}}, requests: {{{0}}}}}",
            limits.join(", ")
        ));
    }
}
