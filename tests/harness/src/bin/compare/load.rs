//! The load, and what a peer uses under it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use harness::load::{Load, Until, request};
use harness::{Cpu, Memory, part};

use crate::cases::{Case, Credentials, Sending};
use crate::peers::{Peer, Running, Scene};

/// One run of one peer.
pub struct Measured {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Microseconds of one request.
    pub cpu: f64,
    /// Of it, in the program; the rest is the kernel's.
    pub user: f64,
    /// What the peer grew by at most.
    pub grown_mib: f64,
}

/// Requests, bytes and latencies, as the client saw them.
struct Seen {
    requests: f64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub fn run(
    scene: &Scene,
    (peer, running): (Peer, &Running),
    case: &Case,
    new: &[String],
    seconds: u64,
) -> Measured {
    let name = peer.title();
    let credentials = match case.credentials {
        Credentials::Known => running.credentials.clone(),
        Credentials::One => running.credentials[..1].to_vec(),
        Credentials::New => new.iter().map(|token| format!("Bearer {token}")).collect(),
    };
    let process = running.process();
    Memory::forget_peak(process);
    let (memory, before) = (Memory::of(process), Cpu::of(process));
    let seen = match case.sending {
        Sending::Saturating => wrk(scene, (name, running), case, &credentials, seconds),
        Sending::Streams(streams) => h2load(scene, (peer, running), case, streams, seconds),
        Sending::Rate(rate) => at_a_rate(running, case, &credentials, rate, seconds),
    };
    let cpu = Cpu::of(process) - before;
    let each = cpu.total / seen.requests;
    Measured {
        per_second: seen.requests / seen.seconds,
        p50_ms: seen.p50_ms,
        p99_ms: seen.p99_ms,
        cpu: each,
        user: each * cpu.user_share(),
        grown_mib: Memory::of(process).peak.saturating_sub(memory.resident) as f64
            / f64::from(1 << 20),
    }
}

/// Prints in the end what is read here.
const DONE: &str = r#"
function done(summary, latency)
  print(string.format("RESULT requests %d\nRESULT bytes %d\nRESULT duration_us %d\nRESULT p50_us %d\nRESULT p99_us %d\nRESULT bad %d",
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.read + summary.errors.timeout))
end
"#;

/// A request for each credential, made once.
const IN_TURN: &str = r#"
local requests, at = {}, 0
function init()
  for line in io.lines(FILE) do
    requests[#requests + 1] = wrk.format(METHOD, TARGET, {Authorization = line}, BODY)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"#;

/// As above, and each once.
const ONCE: &str = r#"
local next_line = io.lines(FILE)
function request()
  return wrk.format(METHOD, TARGET, {Authorization = assert(next_line(), "too few tokens")}, BODY)
end
"#;

fn wrk(
    scene: &Scene,
    (name, running): (&str, &Running),
    case: &Case,
    credentials: &[String],
    seconds: u64,
) -> Seen {
    let script = scene.directory.path().join("load.lua");
    let file = scene.directory.path().join("credentials");
    std::fs::write(&file, credentials.join("\n")).expect("credentials");
    let shape = case.shape;
    let body = if shape.method == "GET" {
        "nil".to_owned()
    } else {
        format!("string.rep(\"x\", {})", shape.sent)
    };
    let (method, target) = (shape.method, shape.target);
    let requests = match case.credentials {
        Credentials::Known => IN_TURN.to_owned(),
        Credentials::New => ONCE.to_owned(),
        Credentials::One => format!(
            "wrk.method, wrk.path, wrk.body = METHOD, TARGET, BODY\nwrk.headers[\"Authorization\"] = {:?}\n",
            credentials[0]
        ),
    };
    let text = format!(
        "local FILE, METHOD, TARGET, BODY = {:?}, {method:?}, {target:?}, {body}\n{requests}{DONE}",
        file.display().to_string()
    );
    std::fs::write(&script, text).expect("script");
    let output = Command::new(part("wrk"))
        .args(["-t1", "--timeout", "30s"])
        .arg(format!("-c{}", case.connections))
        .arg(format!("-d{seconds}s"))
        .arg("-s")
        .arg(&script)
        .arg(format!("http://{}", running.address))
        .output()
        .expect("wrk");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: BTreeMap<&str, f64> = report
        .lines()
        .filter_map(|line| line.strip_prefix("RESULT ")?.split_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    let number = |name: &str| {
        *numbers.get(name).unwrap_or_else(|| panic!("wrk said no {name}: {report}{errors}"))
    };
    assert!(number("bad") < 0.5, "{} by {name}: {report}", case.name);
    // What was under way at the end counts by its bytes: there may be fewer long answers than streams.
    let requests = if shape.received > 1 << 20 {
        number("bytes") / shape.received as f64
    } else {
        number("requests")
    };
    assert!(requests > 0.0, "{}: {report}", case.name);
    Seen {
        requests,
        seconds: number("duration_us") / 1e6,
        p50_ms: number("p50_us") / 1e3,
        p99_ms: number("p99_us") / 1e3,
    }
}

/// With one credential: h2load sends the same headers with each request.
fn h2load(
    scene: &Scene,
    (peer, running): (Peer, &Running),
    case: &Case,
    streams: usize,
    seconds: u64,
) -> Seen {
    let log = scene.directory.path().join("h2load.log");
    let _ = std::fs::remove_file(&log);
    let mut command = Command::new(part("h2load"));
    if peer == Peer::Http1 {
        command.arg("--h1").arg(format!("-c{}", case.connections * streams));
    } else {
        command.arg(format!("-c{}", case.connections)).arg(format!("-m{streams}"));
    }
    let output = command
        .arg(format!("-D{seconds}"))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("--header=authorization: {}", running.credentials[0]))
        .arg(format!("http://{}{}", running.address, case.shape.target))
        .output()
        .expect("h2load");
    let report = String::from_utf8_lossy(&output.stdout);
    // Begin in microseconds since 1970, status, duration in microseconds.
    let lines = std::fs::read_to_string(&log).expect("h2load's log");
    let mut took: Vec<f64> = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split('\t');
        let (status, micros) = (fields.nth(1), fields.next());
        assert_eq!(status, Some("200"), "{} by {}: {report}", case.name, peer.title());
        took.push(micros.and_then(|micros| micros.parse().ok()).expect("a duration"));
    }
    assert!(report.contains(" 0 failed, 0 errored, 0 timeout"), "{}: {report}", peer.title());
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[(took.len() as f64 * share) as usize] / 1e3;
    Seen { requests: took.len() as f64, seconds: seconds as f64, p50_ms: at(0.5), p99_ms: at(0.99) }
}

fn at_a_rate(
    running: &Running,
    case: &Case,
    credentials: &[String],
    rate: f64,
    seconds: u64,
) -> Seen {
    let body = vec![b'x'; case.shape.sent];
    let requests: Vec<Vec<u8>> = credentials
        .iter()
        .map(|credential| request(case.shape.method, case.shape.target, credential, &body))
        .collect();
    let load = Load {
        address: running.address,
        requests: &requests,
        connections: case.connections,
        rate: Some(rate),
        until: Until::After(Duration::from_secs(seconds)),
    };
    let served = tokio::task::block_in_place(|| load.run());
    Seen {
        requests: served.requests as f64,
        seconds: served.elapsed.as_secs_f64(),
        p50_ms: served.quantile_ms(0.5),
        p99_ms: served.quantile_ms(0.99),
    }
}
