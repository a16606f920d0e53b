use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

fn run((name, target): &Target, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(input));
    assert!(outcome.is_ok(), "{name} fails on {:?}", String::from_utf8_lossy(input));
}

#[test]
fn every_target_passes_over_its_corpus() {
    for target in TARGETS {
        let inputs = corpus(target.0);
        assert!(inputs.len() >= 3, "{} has hardly any inputs", target.0);
        for (_, input) in inputs {
            run(target, &input);
        }
    }
}

/// What `scripts/fuzz` does for hours, for some seconds and without a guide: inputs that are changed at random, the same
/// ones each time. `FUZZ_ROUNDS` and `FUZZ_SEED` make it longer and others, `FUZZ_TARGET` names one.
#[test]
fn every_target_passes_over_changed_inputs() {
    let number = |name: &str, or: u64| {
        std::env::var_os(name).map_or(or, |text| text.to_str().unwrap().parse().unwrap())
    };
    let (rounds, seed) = (number("FUZZ_ROUNDS", 1_000), number("FUZZ_SEED", 16));
    let chosen = std::env::var_os("FUZZ_TARGET").unwrap_or_default();
    for target in TARGETS.iter().filter(|target| chosen.is_empty() || *target.0 == chosen) {
        let mut random = fastrand::Rng::with_seed(seed);
        let inputs = corpus(target.0);
        for _ in 0..rounds {
            let mut input = random.choice(&inputs).unwrap().1.clone();
            for _ in 0..random.usize(1..6) {
                let other = &random.choice(&inputs).unwrap().1;
                change(&mut input, other, &mut random);
            }
            run(target, &input);
        }
    }
}

/// The tests above can fail.
#[test]
fn a_planted_bug_is_found() {
    let inputs = corpus("path");
    let mut random = fastrand::Rng::with_seed(16);
    let found = (0..20_000).position(|round: usize| {
        let mut input = inputs[round % inputs.len()].1.clone();
        change(&mut input, &inputs[random.usize(..inputs.len())].1, &mut random);
        std::panic::catch_unwind(|| crate::route::fuzzing::planted(&input)).is_err()
    });
    assert!(found.is_some());
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    let at = random.usize(..=input.len());
    let to = random.usize(at..=input.len());
    match random.u8(..6) {
        0 => drop(input.drain(at..to)),
        1 => input.insert(at, random.u8(..)),
        2 => input.extend_from_within(at..to),
        3 => {
            let from = random.usize(..=other.len());
            let length = random.usize(..=other.len() - from);
            input.splice(at..to, other[from..from + length].iter().copied());
        }
        4 => input.insert(at, *random.choice(b"%./\\;|:\"'{}[]\n\0\x1e\x1d-~&=+").unwrap()),
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
    }
}

/// A corpus without a target would go unnoticed, and a target that `scripts/fuzz` does not find.
#[test]
fn every_target_has_a_corpus_and_is_run() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    let folders = std::fs::read_dir(fuzz().join("corpus")).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, targets);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fuzz");
    let listed = std::process::Command::new(script).arg("--list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().map(str::to_owned).collect::<BTreeSet<_>>(), targets);
}
