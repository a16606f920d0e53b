//! One program for all targets, because building takes longer than most runs: `FUZZ_TARGET` names the target.
#![no_main]

use std::sync::LazyLock;

use mimir_tenant_proxy::fuzzing::{TARGETS, Target};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = || TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = TARGETS.iter().find(|target| target.0 == name);
    *found.unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?} and not one of: {}", known()))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.1(data));
