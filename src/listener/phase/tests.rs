use super::*;
use crate::listener::framing::{Http1, Http2};

const TIMEOUTS: Timeouts = Timeouts {
    header: Duration::from_secs(10),
    idle: Duration::from_secs(120),
    write: Duration::from_secs(60),
};
const NO_BODY: BodyLength = BodyLength::Known(0);
const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// A connection, and its clock in seconds from its opening.
struct Case {
    phase: Phase,
    opened: Instant,
}

impl Case {
    fn new(framing: Framing) -> Self {
        let opened = Instant::now();
        Self { phase: Phase::new(framing, opened), opened }
    }

    fn http1() -> Self {
        Self::new(Framing::Http1(Http1::new()))
    }

    fn http2() -> Self {
        let mut case = Self::new(Framing::Http2(Http2::new()));
        case.read(0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        case
    }

    fn at(&self, seconds: u64) -> Instant {
        self.opened + Duration::from_secs(seconds)
    }

    fn read(&mut self, seconds: u64, bytes: &[u8]) {
        let now = self.at(seconds);
        self.phase.read(bytes, || now);
    }

    /// A whole request and its answer.
    fn serve(&mut self, from: u64, to: u64) {
        self.read(from, GET);
        self.begin(NO_BODY);
        self.wrote(from);
        self.end(to);
    }

    fn begin(&mut self, body: BodyLength) {
        self.begin_at(0, body);
    }

    fn begin_at(&mut self, seconds: u64, body: BodyLength) {
        let now = self.at(seconds);
        self.phase.begin(body, true, || now);
    }

    fn end(&mut self, seconds: u64) {
        let now = self.at(seconds);
        self.phase.end(|| now);
    }

    fn block(&mut self, seconds: u64) {
        let now = self.at(seconds);
        self.phase.blocked(|| now);
    }

    fn wrote(&mut self, seconds: u64) {
        let now = self.at(seconds);
        self.phase.wrote(|| now);
    }

    fn due(&self) -> Option<(u64, Overdue)> {
        let due = self.phase.due(&TIMEOUTS);
        due.map(|(deadline, overdue)| ((deadline - self.opened).as_secs(), overdue))
    }
}

#[test]
fn a_fresh_connection_has_the_time_of_a_head() {
    let mut case = Case::http1();
    assert_eq!(case.due(), Some((10, Overdue::Idle)));
    case.read(8, b"\r\n");
    assert_eq!(case.due(), Some((10, Overdue::Idle)));
    case.read(9, b"GET");
    assert_eq!(case.due(), Some((19, Overdue::Head)));
    case.read(18, b" / HTTP/1.1\r\n");
    assert_eq!(case.due(), Some((19, Overdue::Head)));
    let mut preface = Case::new(Framing::Http2(Http2::new()));
    assert_eq!(preface.due(), Some((10, Overdue::Head)), "as after a TLS handshake");
    preface.read(1, b"PRI");
    assert_eq!(preface.due(), Some((10, Overdue::Head)));
    assert_eq!(Case::http2().due(), Some((120, Overdue::Idle)));
}

#[test]
fn half_a_head_behind_a_request_has_the_time_of_a_head() {
    let mut case = Case::http1();
    case.read(1, &[GET, b"GET"].concat());
    case.begin(NO_BODY);
    assert_eq!(case.due(), None);
    // However long the first took.
    case.end(50);
    assert_eq!(case.due(), Some((60, Overdue::Head)));
    case.read(55, b" / HTTP/1.1\r\n\r\n");
    case.begin(NO_BODY);
    case.end(56);
    assert_eq!(case.due(), Some((176, Overdue::Idle)));
    case.read(100, b"\r\n");
    assert_eq!(case.due(), Some((176, Overdue::Idle)));
}

#[test]
fn a_socket_that_takes_nothing_has_the_time_of_a_write() {
    for mut case in [Case::http1(), Case::http2()] {
        case.read(1, GET);
        case.begin(NO_BODY);
        case.block(2);
        case.block(30);
        assert_eq!(case.due(), Some((62, Overdue::Stalled)));
        assert_eq!(case.phase.free_since(), None);
        case.wrote(40);
        assert_eq!(case.due(), None);
        assert_eq!(case.phase.free_since(), Some(case.at(40)));
        case.block(41);
        // Also when nothing is served any more, and whatever else has come.
        case.end(42);
        case.read(43, b"GET");
        assert_eq!(case.due(), Some((101, Overdue::Stalled)));
    }
}

#[test]
fn an_open_block_of_headers_stops_a_connection_whatever_else_it_does() {
    let mut case = Case::http2();
    case.begin(NO_BODY);
    assert_eq!(case.due(), None);
    case.read(5, &[0, 0, 3, 1, 0, 0, 0, 0, 1, 0x82, 0x86, 0x84]);
    assert_eq!(case.due(), Some((15, Overdue::Head)));
    // The time in which we did not read is not the client's.
    case.block(6);
    case.wrote(30);
    assert_eq!(case.due(), Some((40, Overdue::Head)));
}

#[test]
fn a_body_keeps_a_connection_busy_after_its_answer() {
    let mut case = Case::http1();
    case.read(1, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n");
    case.begin(BodyLength::Known(9));
    case.phase.begin_upload();
    assert!(!case.phase.owes_head());
    case.end(2);
    case.read(3, b"GET / x\r\n");
    assert_eq!(case.due(), None);
    let now = case.at(4);
    case.phase.end_upload(now);
    assert_eq!(case.due(), Some((124, Overdue::Idle)));
}

// Of a body that is not taken, hyper would read another piece ahead.
#[test]
fn a_body_is_read_when_its_next_piece_is_wanted() {
    let mut case = Case::http1();
    assert!(case.phase.wants_bytes(), "a head");
    case.begin(BodyLength::Known(9));
    case.phase.begin_upload();
    assert!(!case.phase.wants_bytes(), "nobody has asked for the body");
    case.phase.note_put_off(true);
    assert!(!case.phase.is_to_be_polled());
    let now = case.at(1);
    case.phase.begin_waiting(now);
    assert!(case.phase.wants_bytes() && case.phase.is_to_be_polled());
    case.phase.note_put_off(false);
    assert!(!case.phase.is_to_be_polled(), "the socket wakes the task");
    case.phase.end_waiting();
    assert!(!case.phase.wants_bytes());
    case.phase.note_put_off(true);
    case.phase.end_upload(now);
    assert!(case.phase.wants_bytes() && case.phase.is_to_be_polled(), "the next head");
    // Streams of HTTP/2 share a socket, and have windows.
    let mut http2 = Case::http2();
    http2.begin(BodyLength::Known(9));
    http2.phase.begin_upload();
    assert!(http2.phase.wants_bytes());
}

#[test]
fn what_is_left_of_a_refused_body_is_read_and_no_other() {
    let mut case = Case::http1();
    let now = case.at(1);
    case.begin(BodyLength::Known(9));
    case.phase.begin_upload();
    case.phase.note_put_off(true);
    case.phase.begin_discarding();
    assert!(case.phase.wants_bytes() && case.phase.is_to_be_polled());
    // The next request's body begins before that of the refused one is dropped.
    case.phase.begin_upload();
    case.phase.end_discarding();
    assert!(!case.phase.wants_bytes(), "nobody has asked for the second body");
    case.phase.end_upload(now);
    assert!(!case.phase.wants_bytes());
    case.phase.end_upload(now);
    assert!(case.phase.wants_bytes());
}

#[test]
fn only_a_whole_request_without_an_answer_is_probed() {
    let mut case = Case::http1();
    assert!(!case.phase.owes_head());
    case.begin(NO_BODY);
    assert!(case.phase.owes_head());
    case.wrote(1);
    assert!(!case.phase.owes_head());
    case.end(1);
    // HTTP/1.0 knows no answers before the answer.
    let now = case.opened;
    case.phase.begin(NO_BODY, false, || now);
    assert!(!case.phase.owes_head());
}

#[test]
fn a_drain_waits_for_nothing_silent() {
    let closing = |case: &mut Case| {
        let now = case.at(20);
        case.phase.close(now);
        case.due()
    };
    let mut idle = Case::http1();
    idle.serve(1, 2);
    // For one more request, which may be on its way.
    assert_eq!(closing(&mut idle), Some((21, Overdue::Idle)));
    idle.serve(24, 30);
    assert_eq!(idle.due(), Some((31, Overdue::Idle)));
    let mut head = Case::http1();
    head.read(12, b"GET");
    assert_eq!(closing(&mut head), Some((22, Overdue::Head)));
    head.read(21, b" / HTTP/1.1\r\n\r\nGET");
    head.begin(NO_BODY);
    head.end(22);
    assert_eq!(head.due(), Some((27, Overdue::Head)));
    let mut stalled = Case::http1();
    stalled.begin(NO_BODY);
    stalled.block(15);
    assert_eq!(closing(&mut stalled), Some((25, Overdue::Stalled)));
    let mut upload = Case::http1();
    upload.begin(BodyLength::Known(5));
    upload.phase.begin_upload();
    let now = upload.at(3);
    upload.phase.begin_waiting(now);
    assert_eq!(upload.due(), None);
    assert_eq!(closing(&mut upload), Some((25, Overdue::Upload)));
    upload.phase.end_waiting();
    assert_eq!(upload.due(), None);
}

// h2 takes requests until its GOAWAY is acknowledged, which nobody can be made to do.
#[test]
fn who_takes_no_note_of_the_end_is_cut_off() {
    let mut case = Case::http2();
    let now = case.at(10);
    case.phase.close(now);
    for second in 10..=15 {
        case.begin_at(second, NO_BODY);
        assert_eq!(case.due(), None, "it is served in second {second}");
        case.end(second);
    }
    case.begin_at(16, NO_BODY);
    assert_eq!(case.due(), Some((0, Overdue::Farewell)));
    // What began before has its own deadlines, however long it takes.
    let mut long = Case::http2();
    long.begin(NO_BODY);
    let now = long.at(10);
    long.phase.close(now);
    assert_eq!(long.due(), None);
}

// What rests is taken apart, so nothing of a request may be in progress, in either direction.
#[test]
fn only_a_connection_with_nothing_in_progress_rests() {
    let resting = |case: &Case| case.phase.resting_since().map(|at| (at - case.opened).as_secs());
    let mut case = Case::http1();
    assert_eq!(resting(&case), None, "nothing was served");
    case.serve(1, 2);
    assert_eq!(resting(&case), Some(2));
    case.read(3, b"\r\n");
    assert_eq!(resting(&case), Some(2), "an empty line is no request");
    case.read(4, &GET[..9]);
    assert_eq!(resting(&case), None, "half a head");
    case.read(5, &[&GET[9..], GET].concat());
    assert_eq!(resting(&case), None, "heads that are not parsed");
    case.begin(NO_BODY);
    assert_eq!(resting(&case), None, "a request");
    case.block(6);
    case.end(7);
    assert_eq!(resting(&case), None, "an answer that the socket does not take");
    case.wrote(8);
    assert_eq!(resting(&case), Some(7));
    // Pipelined, and both parsed.
    let mut body = Case::http1();
    body.read(1, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET");
    body.begin(BodyLength::Known(9));
    body.phase.begin_upload();
    body.end(2);
    assert_eq!(resting(&body), None, "a body after its answer");
    let now = body.at(3);
    body.phase.end_upload(now);
    assert_eq!(resting(&body), None, "a body that is not read, and of which a part is missing");
    body.read(4, b"456789");
    assert_eq!(resting(&body), Some(3));
    body.phase.close(now);
    assert_eq!(resting(&body), None, "a drain ends it");
    let mut http2 = Case::http2();
    http2.begin(NO_BODY);
    http2.end(1);
    assert_eq!(resting(&http2), None, "HTTP/2 has more between two requests");
    let opened = Instant::now();
    let resumed = Phase::http1(opened, Some(opened + Duration::from_secs(5)));
    assert_eq!(
        resumed.due(&TIMEOUTS),
        Some((opened + Duration::from_secs(125), Overdue::Idle)),
        "the idle timeout goes on"
    );
}

// No credit for any stream, which a client of HTTP/2 needs no credential for.
#[test]
fn a_connection_of_which_no_stream_is_read_is_quiet() {
    let quiet = |case: &Case| {
        let seconds = |since: Instant| (since - case.opened).as_secs();
        case.phase.quiet().map(|(since, quiet)| (seconds(since), quiet))
    };
    let mut case = Case::http2();
    let unread = |case: &mut Case, second| {
        let now = case.at(second);
        case.phase.begin_unread(now);
    };
    case.begin(NO_BODY);
    assert_eq!(quiet(&case), None, "a request is served");
    unread(&mut case, 1);
    assert_eq!(quiet(&case), Some((1, Quiet::NotReading)));
    // Further requests change nothing.
    case.begin(NO_BODY);
    assert_eq!(quiet(&case), None, "another one is served");
    unread(&mut case, 5);
    assert_eq!(quiet(&case), Some((1, Quiet::NotReading)));
    // Nor does the end of one.
    case.phase.end_unread();
    case.end(6);
    assert_eq!(quiet(&case), Some((1, Quiet::NotReading)));
    let now = case.at(7);
    case.phase.took(|| now);
    assert_eq!(quiet(&case), Some((7, Quiet::NotReading)), "a slow reader");
    // The time in which the socket took nothing is not the streams'.
    case.block(8);
    assert_eq!(quiet(&case), Some((8, Quiet::NotReading)));
    case.wrote(12);
    assert_eq!(quiet(&case), Some((12, Quiet::NotReading)));
    case.phase.end_unread();
    case.phase.took(|| panic!("nobody waits"));
    assert_eq!(quiet(&case), None);
    case.end(20);
    assert_eq!(quiet(&case), Some((20, Quiet::NoRequest)));
}

// Over one connection some streams may send while others are not read. A client that is refused may send for five seconds
// more, as often as they like.
#[test]
fn a_body_keeps_a_connection_that_is_not_read_unless_it_is_thrown_away() {
    for blocks in [false, true] {
        let mut case = Case::http2();
        case.begin(NO_BODY);
        let now = case.at(1);
        case.phase.begin_unread(now);
        if blocks {
            case.block(1);
        }
        case.phase.begin_upload();
        assert_eq!(case.phase.quiet(), None);
        case.phase.begin_discarding();
        assert_eq!(case.phase.quiet(), Some((now, Quiet::NotReading)));
        case.phase.begin_upload();
        assert_eq!(case.phase.quiet(), None);
    }
}

// The refusal is gone at once, and the body is awaited for five seconds more. Before, a request in each of them kept a
// connection.
#[test]
fn a_body_that_is_thrown_away_after_its_answer_is_no_request() {
    let mut case = Case::http2();
    case.begin(BodyLength::Known(9));
    case.phase.begin_upload();
    case.phase.begin_discarding();
    assert_eq!(case.phase.quiet(), None, "it is not answered yet");
    case.end(3);
    assert_eq!(case.phase.quiet(), Some((case.at(3), Quiet::NoRequest)));
    assert_eq!(case.due(), None, "the body has its own deadline");
    // Others are served, or send.
    case.begin(NO_BODY);
    assert_eq!(case.phase.quiet(), None);
    case.end(4);
    case.phase.begin_upload();
    assert_eq!(case.phase.quiet(), None);
    let now = case.at(5);
    case.phase.end_upload(now);
    assert_eq!(case.phase.quiet(), Some((now, Quiet::NoRequest)));
    case.phase.end_discarding();
    case.phase.end_upload(now);
    assert_eq!(case.due(), Some((125, Overdue::Idle)));
}

// Only a reset tells a part of an answer from the whole, and it would take a whole one from a client that has not read
// it yet.
#[test]
fn only_an_answer_that_has_begun_and_not_ended_is_owed() {
    let owed = |case: &Case| case.phase.owes_rest();
    let mut case = Case::http1();
    case.read(0, GET);
    case.begin(NO_BODY);
    assert!(!owed(&case), "it has no part yet");
    case.wrote(0);
    assert!(owed(&case));
    case.block(1);
    case.end(1);
    assert!(owed(&case), "the last bytes wait");
    case.wrote(2);
    assert!(!owed(&case), "it is whole");
    case.read(3, GET);
    case.begin(NO_BODY);
    assert!(!owed(&case), "nothing of the second one");
    case.wrote(3);
    case.end(3);
    case.phase.said_all();
    case.block(4);
    assert!(!owed(&case), "a close_notify waits");
    let mut case = Case::http2();
    case.begin(NO_BODY);
    case.wrote(0);
    assert!(!owed(&case), "HTTP/2 marks the end");
}
