//! Facts about the container, computed at each start under the names of Ansible's setup
//! module and with its types: a number of workers or the size of a cache then fits the
//! container instead of the machine that built the image.
//!
//! A limit of the container (cgroup v1 and v2) counts where it is lower than what the
//! machine has. Nothing asks the network: names come from uname(2) and `/etc/hosts`,
//! addresses from the kernel's tables. A fact that cannot be computed keeps the value that
//! it had at build.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use contract::{Contract, Value, Variables};
use serde_json::json;

use crate::cgroup::{Cgroup, MIB, Memory, processors};
use crate::root::Root;

/// Values for those of [`Contract::facts`] that are known here.
pub fn now(contract: &Contract, root: &Root) -> Variables {
    if contract.facts.is_empty() {
        return Variables::new();
    }
    let own = all(root);
    let mut facts = Variables::new();
    for name in &contract.facts {
        // Ansible's other way to say it: `ansible_facts.hostname`.
        match name.strip_prefix("ansible_facts.") {
            None => {
                if let Some(value) = own.get(name) {
                    facts.insert(name.clone(), value.clone());
                }
            }
            Some(fact) => {
                let all = facts
                    .entry("ansible_facts")
                    .or_insert_with(|| Value::Object(built(contract)));
                if let (Value::Object(all), Some(value)) =
                    (all, own.get(&format!("ansible_{fact}")))
                {
                    all.insert(fact.to_owned(), value.clone());
                }
            }
        }
    }
    facts
}

/// `ansible_facts` as it was at build. Each template may have kept the part that it needs.
fn built(contract: &Contract) -> Variables {
    let templates = contract
        .templates
        .iter()
        .map(|template| &template.variables);
    let mut out = Variables::new();
    for map in templates.chain([&contract.variables]) {
        if let Some(Value::Object(facts)) = map.get("ansible_facts") {
            out.extend(facts.iter().map(|(k, v)| (k.clone(), literal(v))));
        }
    }
    out
}

/// Values of settings are literal, so that no text needs the mark that it is.
fn literal(value: &Value) -> Value {
    match value {
        Value::Object(map) => match map.get("__ansible_unsafe") {
            Some(text) if map.len() == 1 => text.clone(),
            _ => map.iter().map(|(k, v)| (k.clone(), literal(v))).collect(),
        },
        Value::Array(items) => items.iter().map(literal).collect(),
        other => other.clone(),
    }
}

fn all(root: &Root) -> Variables {
    let mut facts = Variables::new();
    let mut put = |name: &str, value: Value| drop(facts.insert(format!("ansible_{name}"), value));

    let cgroup = Cgroup::new(root);
    let processors = processors(cgroup.processors());
    // As one socket: what a machine's topology means for a quota nobody can say.
    put("processor_count", json!(1));
    put("processor_cores", json!(processors));
    put("processor_threads_per_core", json!(1));
    put("processor_vcpus", json!(processors));
    put("processor_nproc", json!(processors));

    if let Some(memory) = Memory::read(root, &cgroup) {
        put("memtotal_mb", json!(memory.total / MIB));
        put("memfree_mb", json!(memory.free / MIB));
        put("swaptotal_mb", json!(memory.swap_total / MIB));
        put("swapfree_mb", json!(memory.swap_free / MIB));
        put("memory_mb", memory.nested());
    }

    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let hosts = root.read("/etc/hosts").ok().flatten().unwrap_or_default();
    let full = full_name(&hosts, &node);
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    put("nodename", json!(node));
    put("hostname", json!(short(&node)));
    put(
        "domain",
        json!(full.split_once('.').map_or("", |(_, domain)| domain)),
    );
    put("fqdn", json!(full));

    let interfaces = Interfaces::read(root);
    put("default_ipv4", interfaces.default_v4());
    put("default_ipv6", interfaces.default_v6());
    put("all_ipv4_addresses", interfaces.all(IpAddr::is_ipv4));
    put("all_ipv6_addresses", interfaces.all(IpAddr::is_ipv6));
    facts
}

/// Python's `socket.getfqdn`: of the names that `/etc/hosts` gives this host, the first
/// one with a dot.
fn full_name(hosts: &str, node: &str) -> String {
    hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .find(|names| names.contains(&node))
        .and_then(|names| names.into_iter().find(|name| name.contains('.')))
        .unwrap_or(node)
        .to_owned()
}

struct Interface {
    name: String,
    address: IpAddr,
    netmask: Option<IpAddr>,
    broadcast: Option<IpAddr>,
    loopback: bool,
}

struct Interfaces<'a> {
    root: &'a Root,
    all: Vec<Interface>,
}

impl<'a> Interfaces<'a> {
    fn read(root: &'a Root) -> Self {
        let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
            let storage = storage?;
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        };
        let found = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let all = found
            .filter_map(|entry| {
                Some(Interface {
                    address: ip(entry.address)?,
                    netmask: ip(entry.netmask),
                    broadcast: ip(entry.broadcast),
                    loopback: entry
                        .flags
                        .contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK),
                    name: entry.interface_name,
                })
            })
            .collect();
        Interfaces { root, all }
    }

    /// Ansible's lists leave loopback out.
    fn all(&self, of: fn(&IpAddr) -> bool) -> Value {
        let found = self.all.iter().filter(|i| !i.loopback && of(&i.address));
        found.map(|i| Value::from(i.address.to_string())).collect()
    }

    fn attribute(&self, interface: &str, name: &str) -> Option<String> {
        let path = format!("/sys/class/net/{interface}/{name}");
        Some(self.root.read(&path).ok()??.trim().to_owned())
    }

    fn common(&self, interface: &str) -> Variables {
        let mut out = Variables::new();
        let mut put = |name: &str, value| drop(out.insert(name.to_owned(), value));
        put("interface", json!(interface));
        if let Some(address) = self.attribute(interface, "address") {
            put("macaddress", json!(address));
        }
        let mtu = self.attribute(interface, "mtu");
        if let Some(mtu) = mtu.and_then(|mtu| mtu.parse::<u32>().ok()) {
            put("mtu", json!(mtu));
        }
        put("type", json!("ether"));
        out
    }

    fn default_v4(&self) -> Value {
        let routes = self.root.read("/proc/net/route").ok().flatten();
        let route = routes.as_deref().and_then(default_route_v4);
        let Some((interface, gateway)) = route else {
            return json!({});
        };
        let entry = self
            .all
            .iter()
            .find(|i| i.name == interface && i.address.is_ipv4());
        let Some(Interface {
            address: IpAddr::V4(address),
            netmask,
            broadcast,
            ..
        }) = entry
        else {
            return json!({});
        };
        let mut out = self.common(&interface);
        let mut put = |name: &str, value| drop(out.insert(name.to_owned(), value));
        put("address", json!(address.to_string()));
        put("alias", json!(interface));
        put("gateway", json!(gateway.to_string()));
        if let Some(IpAddr::V4(mask)) = netmask {
            let network = Ipv4Addr::from_bits(address.to_bits() & mask.to_bits());
            put("netmask", json!(mask.to_string()));
            put("network", json!(network.to_string()));
            put("prefix", json!(mask.to_bits().count_ones().to_string()));
        }
        let broadcast = broadcast.map_or(String::new(), |b| b.to_string());
        put("broadcast", json!(broadcast));
        Value::Object(out)
    }

    fn default_v6(&self) -> Value {
        let routes = self.root.read("/proc/net/ipv6_route").ok().flatten();
        let route = routes.as_deref().and_then(default_route_v6);
        let Some((interface, gateway)) = route else {
            return json!({});
        };
        let local = |address: &Ipv6Addr| address.is_unicast_link_local();
        let mut entries = self.all.iter().filter(|i| i.name == interface);
        let entry = entries.find(|i| matches!(&i.address, IpAddr::V6(a) if !local(a)));
        let Some(Interface {
            address, netmask, ..
        }) = entry
        else {
            return json!({});
        };
        let mut out = self.common(&interface);
        let mut put = |name: &str, value| drop(out.insert(name.to_owned(), value));
        put("address", json!(address.to_string()));
        put("gateway", json!(gateway.to_string()));
        put("scope", json!("global"));
        if let Some(IpAddr::V6(mask)) = netmask {
            put("prefix", json!(mask.to_bits().count_ones().to_string()));
        }
        Value::Object(out)
    }
}

/// Interface and gateway of proc_net(5)'s `route`; addresses are in the machine's order.
fn default_route_v4(routes: &str) -> Option<(String, Ipv4Addr)> {
    let found = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [
            interface,
            destination,
            gateway,
            flags,
            _,
            _,
            metric,
            mask,
            ..,
        ] = fields[..]
        else {
            return None;
        };
        let is_up = u32::from_str_radix(flags, 16).ok()? & 1 == 1;
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (is_up && destination == "00000000" && mask == "00000000").then(|| {
            let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
            (
                metric.parse::<u32>().unwrap_or(0),
                (interface.to_owned(), gateway),
            )
        })
    });
    found
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, route)| route)
}

/// Interface and gateway of `ipv6_route`: destination, its length, source, its length,
/// gateway, metric, two counters, flags, interface.
fn default_route_v6(routes: &str) -> Option<(String, Ipv6Addr)> {
    let found = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [
            destination,
            length,
            _,
            _,
            gateway,
            metric,
            _,
            _,
            _,
            interface,
        ] = fields[..]
        else {
            return None;
        };
        let gateway = u128::from_str_radix(gateway, 16).ok()?;
        let is_default = length == "00" && destination.bytes().all(|b| b == b'0');
        // Without a gateway it is the kernel's own entry that rejects.
        (is_default && gateway != 0 && interface != "lo").then(|| {
            let metric = u32::from_str_radix(metric, 16).unwrap_or(0);
            (metric, (interface.to_owned(), Ipv6Addr::from(gateway)))
        })
    });
    found
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_routes() {
        let hosts = "127.0.0.1 localhost\n172.17.0.2\tbox.corp.example box # ours\n";
        assert_eq!(full_name(hosts, "box"), "box.corp.example");
        assert_eq!(full_name("172.17.0.2 box\n", "box"), "box");
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth1 00000000 010013AC 0003 0 0 20 00000000 0 0 0\n\
            eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0\n\
            eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n";
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        assert_eq!(default_route_v4(routes), Some(("eth0".to_owned(), gateway)));
        let zero = "0".repeat(32);
        let routes = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth0\n"
        );
        let gateway = "fe80::1".parse().unwrap();
        assert_eq!(
            default_route_v6(&routes),
            Some(("eth0".to_owned(), gateway))
        );
    }

    #[test]
    fn only_facts_that_the_contract_asks_for_and_its_own_where_none_is_known() {
        let contract: Contract = serde_json::from_value(json!({
            "format": contract::FORMAT,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "facts": ["ansible_processor_vcpus", "ansible_facts.processor_vcpus", "ansible_kernel"],
            "variables": {
                "ansible_processor_vcpus": 64,
                "ansible_kernel": "6.1",
                "ansible_facts": {"processor_vcpus": 64, "kernel": {"__ansible_unsafe": "6.1"}},
            },
        }))
        .unwrap();
        let (_dir, root) = Root::made(&[
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ]);
        let facts = now(&contract, &root);
        assert_eq!(facts["ansible_processor_vcpus"], json!(1));
        assert_eq!(
            facts["ansible_facts"],
            json!({"processor_vcpus": 1, "kernel": "6.1"})
        );
        assert_eq!(facts.len(), 2);
    }
}
