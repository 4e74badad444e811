//! What a client of supervisord's socket sends: HTTP, and the call in its body; and what it is
//! answered, which must be XML whatever a log held.
#![no_main]
#![allow(
    dead_code,
    reason = "the entrypoint is a program: its modules are taken as they are"
)]

#[path = "../../entrypoint/src/supervisord"]
mod supervisord {
    pub mod faults;
    pub mod http;
    pub mod xmlrpc;
}

use libfuzzer_sys::fuzz_target;
use supervisord::{http, xmlrpc};

fuzz_target!(|bytes: &[u8]| {
    let body = match http::parse(bytes) {
        http::Parsed::Request(request, used) => {
            assert!(used <= bytes.len());
            request.body
        }
        _ => bytes.to_vec(),
    };
    if let Some((name, parameters)) = xmlrpc::call(&body) {
        let text = xmlrpc::Value::from(name);
        let all: Vec<xmlrpc::Value> = parameters.into_iter().chain([text]).collect();
        let answer = xmlrpc::response(&Ok(xmlrpc::Value::Array(all)));
        let answer = String::from_utf8(answer).expect("an answer is UTF-8");
        roxmltree::Document::parse(&answer).expect("an answer is XML");
    }
});
