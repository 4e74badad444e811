//! Kubernetes, and `podman kube play` with it: a Deployment of one box with its claims,
//! secret and service.

use super::describe::{Description, Value};
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
    for mount in &d.volumes {
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
    deployment(&mut text, d);
    if !d.ports.is_empty() {
        begin(&mut text, "v1", "Service", &d.name);
        text.line("spec:")
            .line(&format!("  selector: {{app: {}}}", d.name))
            .line("  ports:");
        for port in &d.ports {
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

fn deployment(text: &mut Text, d: &Description) {
    begin(text, "apps/v1", "Deployment", &d.name);
    text.line(&format!("  labels: {{app: {}}}", d.name));
    text.lines([
        "spec:",
        "  replicas: 1",
        "  strategy: {type: Recreate}  # two boxes never share a volume",
    ]);
    text.line(&format!("  selector: {{matchLabels: {{app: {}}}}}", d.name));
    text.line("  template:")
        .line("    metadata:")
        .line(&format!("      labels: {{app: {}}}", d.name));
    text.line("    spec:")
        .line(&format!("      terminationGracePeriodSeconds: {}", d.grace));
    text.lines([
        "      automountServiceAccountToken: false",
        "      enableServiceLinks: false",
    ]);
    text.line("      containers:")
        .line(&format!("        - name: {}", d.name));
    text.line(&format!("          image: {}", yaml(&d.image)));
    text.line("          imagePullPolicy: IfNotPresent");
    if !d.ports.is_empty() {
        text.line("          ports:");
        for port in &d.ports {
            text.line(&format!("            - {{containerPort: {port}}}"));
        }
    }
    environment(text, d);
    probes(text, d);
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
        text.line(&format!(
            "          persistentVolumeClaim: {{claimName: {}-{}}}",
            d.name, mount.name
        ));
    }
    if !d.secrets.is_empty() {
        text.line("        - name: secrets").line(&format!(
            "          secret: {{secretName: {}-secrets, defaultMode: 256}}  # 0400, which YAML 1.2 reads as four hundred",
            d.name
        ));
    }
}

fn environment(text: &mut Text, d: &Description) {
    text.line("          env:");
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
