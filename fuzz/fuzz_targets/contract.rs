//! A contract that is read is written again as the same contract.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(contract) = serde_json::from_slice::<contract::Contract>(bytes) else {
        return;
    };
    let text = serde_json::to_string(&contract).expect("a contract is JSON");
    let again: contract::Contract = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(text, serde_json::to_string(&again).expect("a contract is JSON"));
});
