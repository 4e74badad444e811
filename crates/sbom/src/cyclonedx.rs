//! CycloneDX 1.6 (ECMA-424) as JSON. The same input gives the same bytes: the serial number
//! is made of the content, the time is given.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Ecosystem, Found, Package};

/// What the document is about.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// The image's name, perhaps with its registry: `acme/backend`.
    pub name: &'a str,
    pub version: &'a str,
    pub description: Option<&'a str>,
    pub vendor: Option<&'a str>,
    /// An SPDX expression.
    pub licenses: Option<&'a str>,
    /// 64 hexadecimal digits, of the archive.
    pub sha256: &'a str,
    /// `sha256:…` of the image.
    pub manifest_digest: &'a str,
    /// Of Tiffin, whose entrypoint is in the box.
    pub builder: &'a str,
    /// As RFC 3339 has it.
    pub created: &'a str,
}

const BOX: &str = "box";

/// The document, with a line feed at its end.
pub fn document(product: &Product, found: &Found) -> Vec<u8> {
    // A reference stands for one component: two spellings of a name are one, too.
    let mut by_purl: BTreeMap<Option<String>, Component> = BTreeMap::new();
    for (package, places) in &found.packages {
        let component = of_package(package, places, found.distribution.as_ref());
        match by_purl.entry(component.purl.clone()) {
            Entry::Vacant(free) => {
                free.insert(component);
            }
            Entry::Occupied(mut known) => {
                let more = component.evidence.into_iter().flat_map(|e| e.occurrences);
                if let Some(evidence) = &mut known.get_mut().evidence {
                    evidence.occurrences.extend(more);
                }
            }
        }
    }
    let mut components: Vec<Component> = by_purl.into_values().collect();
    components.push(Component {
        bom_ref: Some("tiffin-entrypoint".to_owned()),
        ..Component::new("application", "tiffin-entrypoint", product.builder)
    });
    let dependencies = vec![Dependency {
        reference: BOX,
        depends_on: components
            .iter()
            .filter_map(|c| c.bom_ref.clone())
            .collect(),
    }];
    let mut document = Document {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: None,
        version: 1,
        metadata: Metadata {
            timestamp: product.created,
            lifecycles: [Lifecycle { phase: "build" }],
            tools: Tools {
                components: [Component::new("application", "tiffin", product.builder)],
            },
            component: of_box(product),
        },
        components,
        dependencies,
    };
    document.serial_number = Some(serial(&json(&document)));
    json(&document)
}

fn json(document: &Document) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(document).expect("text and numbers always serialise");
    text.push(b'\n');
    text
}

/// A UUID of one's own making (RFC 9562, section 5.8).
fn serial(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("urn:uuid:{}", parts.join("-"))
}

fn of_box<'a>(product: &Product<'a>) -> Component<'a> {
    let (repository, name) = match product.name.rsplit_once('/') {
        Some((_, name)) => (Some(product.name), name),
        None => (None, product.name),
    };
    // A name without a registry is not where the image can be had.
    let repository = repository.filter(|full| {
        let first = full.split('/').next().unwrap_or_default();
        first.contains(['.', ':']) || first == "localhost"
    });
    let mut purl = format!(
        "pkg:oci/{}@{}",
        quoted(name),
        quoted(product.manifest_digest)
    );
    let qualifiers = [
        ("repository_url", repository),
        ("tag", Some(product.version)),
    ];
    qualify(&mut purl, &qualifiers);
    Component {
        bom_ref: Some(BOX.to_owned()),
        description: product.description.map(str::to_owned),
        supplier: product.vendor.map(|name| Organisation {
            name: name.to_owned(),
        }),
        licenses: licenses(product.licenses),
        hashes: vec![Hash {
            alg: "SHA-256",
            content: product.sha256.to_owned(),
        }],
        purl: Some(purl),
        ..Component::new("container", product.name, product.version)
    }
}

fn of_package<'a>(
    package: &'a Package,
    places: &BTreeSet<String>,
    distribution: Option<&(String, String)>,
) -> Component<'a> {
    let (name, version) = (&*package.name, quoted(&package.version));
    let purl = match package.ecosystem {
        Ecosystem::Debian => {
            let vendor = distribution.map_or("debian", |(id, _)| id);
            let mut purl = format!(
                "pkg:deb/{}/{}@{version}",
                quoted(&vendor.to_lowercase()),
                quoted(&name.to_lowercase())
            );
            let distro = distribution.map(|(id, version)| format!("{id}-{version}"));
            let arch = Some(&*package.architecture).filter(|arch| !arch.is_empty());
            qualify(&mut purl, &[("arch", arch), ("distro", distro.as_deref())]);
            purl
        }
        Ecosystem::Python => format!("pkg:pypi/{}@{version}", quoted(&normal(name))),
    };
    // Where dpkg keeps its database is no news.
    let occurrences: Vec<Occurrence> = places
        .iter()
        .filter(|_| package.ecosystem == Ecosystem::Python)
        .map(|place| Occurrence {
            location: place.clone(),
        })
        .collect();
    Component {
        bom_ref: Some(purl.clone()),
        licenses: licenses(package.license.as_deref()),
        purl: Some(purl),
        evidence: (!occurrences.is_empty()).then_some(Evidence { occurrences }),
        ..Component::new("library", name, &package.version)
    }
}

fn licenses(expression: Option<&str>) -> Vec<Expression> {
    let expression = expression.map(str::to_owned);
    expression
        .into_iter()
        .map(|expression| Expression { expression })
        .collect()
}

fn qualify(purl: &mut String, qualifiers: &[(&str, Option<&str>)]) {
    let mut before = '?';
    for (key, value) in qualifiers {
        if let Some(value) = value {
            purl.push_str(&format!("{before}{key}={}", quoted(value)));
            before = '&';
        }
    }
}

/// As package URLs write text: unreserved characters and the colon stay.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                quoted.push(char::from(byte));
            }
            _ => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

/// PEP 503: lower case, and one `-` for each run of `-`, `_` and `.`.
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "$schema")]
    schema: &'a str,
    bom_format: &'a str,
    spec_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component<'a>>,
    dependencies: Vec<Dependency<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: &'a str,
    lifecycles: [Lifecycle<'a>; 1],
    tools: Tools<'a>,
    component: Component<'a>,
}

#[derive(Serialize)]
struct Lifecycle<'a> {
    phase: &'a str,
}

#[derive(Serialize)]
struct Tools<'a> {
    components: [Component<'a>; 1],
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    bom_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Organisation>,
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Expression>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
}

impl<'a> Component<'a> {
    fn new(kind: &'a str, name: &'a str, version: &'a str) -> Component<'a> {
        Component {
            kind,
            bom_ref: None,
            supplier: None,
            name,
            version,
            description: None,
            hashes: Vec::new(),
            licenses: Vec::new(),
            purl: None,
            evidence: None,
        }
    }
}

#[derive(Serialize)]
struct Organisation {
    name: String,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Expression {
    expression: String,
}

#[derive(Serialize)]
struct Evidence {
    occurrences: Vec<Occurrence>,
}

#[derive(Serialize)]
struct Occurrence {
    location: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    depends_on: Vec<String>,
}
