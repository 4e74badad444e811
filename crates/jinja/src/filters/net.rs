//! The common forms of `ansible.utils.ipaddr`; an unknown query is an error, never a guess.

use std::net::IpAddr;

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::python;
use crate::runtime::Call;
use crate::value;

pub const FILTERS: &[(&str, Filter)] = &[
    ("ipaddr", |call| query(call, None)),
    ("ipv4", |call| query(call, Some(true))),
    ("ipv6", |call| query(call, Some(false))),
    ("ipwrap", |call| {
        let text = call.input()?;
        Ok(Value::from(match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{text}]"),
            _ => text,
        }))
    }),
];

fn query(call: &mut Call, version4: Option<bool>) -> Result<Value> {
    let query = call.text_or(1, "query", "")?;
    match python::sequence(call.value()) {
        Some(items) => {
            let mut out = Vec::new();
            for item in items {
                let answer = one(&python::defined_text(&item)?, &query, version4)?;
                out.extend(answer);
            }
            Ok(value::list(out))
        }
        None => Ok(one(&call.input()?, &query, version4)?.unwrap_or_else(|| Value::from(false))),
    }
}

fn one(text: &str, query: &str, version4: Option<bool>) -> Result<Option<Value>> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Ok(None);
    };
    if version4.is_some_and(|v4| v4 != address.is_ipv4()) {
        return Ok(None);
    }
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    let given = match prefix {
        None => None,
        Some(prefix) => match prefix.parse::<u32>() {
            Ok(prefix) if prefix <= bits => Some(prefix),
            _ => return Ok(None),
        },
    };
    let length = given.unwrap_or(bits);
    let raw = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let all = if bits == 32 {
        u128::from(u32::MAX)
    } else {
        u128::MAX
    };
    let host_mask = if length == 0 {
        all
    } else {
        all.checked_shr(length + 128 - bits)
            .map_or(0, |_| if length == bits { 0 } else { all >> length })
    };
    let show = |raw: u128| match bits {
        32 => IpAddr::from(((raw & all) as u32).to_be_bytes()).to_string(),
        _ => IpAddr::from(raw.to_be_bytes()).to_string(),
    };
    let network = raw & !host_mask;
    Ok(Some(match query {
        "" => Value::from(text),
        // An address of its own, not that of a network.
        "address" | "ip" if given.is_some_and(|p| p < bits) && raw == network => return Ok(None),
        "address" | "ip" => Value::from(show(raw)),
        "network" => Value::from(show(network)),
        "netmask" => Value::from(show(!host_mask & all)),
        "hostmask" | "wildcard" => Value::from(show(host_mask)),
        "prefix" => Value::from(length),
        "broadcast" if length + 1 < bits => Value::from(show(network | host_mask)),
        "broadcast" => return Ok(None),
        "subnet" | "network/prefix" => Value::from(format!("{}/{length}", show(network))),
        "host/prefix" | "address/prefix" => Value::from(format!("{}/{length}", show(raw))),
        "host" => Value::from(format!("{}/{length}", show(raw))),
        "size" => value::int(i128::try_from(host_mask).unwrap_or(i128::MAX - 1) + 1),
        "version" => Value::from(if bits == 32 { 4 } else { 6 }),
        "bool" => Value::from(true),
        _ => return fault::fail("a query of ipaddr that is not supported"),
    }))
}
