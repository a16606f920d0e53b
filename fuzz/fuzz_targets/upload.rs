#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mimir_tenant_proxy::fuzzing::upload(data));
