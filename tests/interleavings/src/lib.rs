//! The proxy's lock-free parts under loom, which runs a test once for every order in which its threads can come.
//! `build.rs` takes them from `src` as they stand.
//!
//! What is tested here is what no lock guards and what somebody relies on: slots for all organisations, the upload
//! buffer, rates, and lines per second. Counters that are only shown have no order that could be wrong, and
//! what one worker has alone (connections, budgets) no other thread.

#![cfg(test)]

/// `parking_lot`'s lock as loom has it.
mod lock {
    pub(crate) use loom::sync::MutexGuard;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

mod route {
    pub(crate) use super::priority::Priority;
}

macro_rules! part {
    ($name:ident, $file:literal) => {
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $file));
        }
    };
}

part!(upload_buffer, "request_body_upload_buffer.rs");
part!(per_second, "per_second.rs");
part!(priority, "route_priority.rs");
part!(rate, "limits_rate.rs");
part!(shares, "limits_shares.rs");

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::thread;

use per_second::PerSecond;
use priority::Priority;
use rate::Rate;
use shares::{Holders, Holding, NoShare, Share, Shares};
use upload_buffer::{UploadBuffer, UploadShare};

#[test]
fn the_upload_buffer_is_never_overdrawn_and_empty_in_the_end() {
    loom::model(|| {
        let buffer = Arc::new(UploadBuffer::new(10));
        let share = Arc::<UploadShare>::default();
        // Both fit.
        let takers = [2, 2].map(|bytes| {
            let (buffer, share) = (Arc::clone(&buffer), Arc::clone(&share));
            thread::spawn(move || {
                let room = buffer.take(&share, bytes);
                assert!(room.is_some() && (2..=4).contains(&buffer.used()), "{}", buffer.used());
                drop(room);
            })
        });
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(buffer.used(), 0);
        assert!(share.is_empty());
    });
}

#[test]
fn a_second_has_no_more_than_its_number() {
    loom::model(|| {
        let per_second = Arc::new(PerSecond::default());
        let takers = [7, 7, 8].map(|second| {
            let per_second = Arc::clone(&per_second);
            thread::spawn(move || (second, per_second.take(second, 1)))
        });
        let taken: Vec<_> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        let of = |second| taken.iter().filter(|taken| **taken == (second, true)).count();
        assert_eq!(of(8), 1);
        // A thread that is late may find that the next second has begun, and begin the last one again.
        assert!((1..=2).contains(&of(7)), "{taken:?}");
    });
}

#[test]
fn a_line_of_a_second_is_taken_once() {
    loom::model(|| {
        let per_second = Arc::new(PerSecond::default());
        let takers = [(); 2].map(|()| {
            let per_second = Arc::clone(&per_second);
            thread::spawn(move || per_second.take(7, 1))
        });
        let taken = takers.into_iter().map(|taker| taker.join().unwrap());
        assert_eq!(taken.filter(|taken| *taken).count(), 1);
    });
}

#[test]
fn no_unit_of_a_rate_is_given_twice() {
    loom::model(|| {
        let rate = Arc::new(Rate::new(NonZeroU64::new(1), Duration::from_secs(2)));
        let takers = [(); 3].map(|()| {
            let rate = Arc::clone(&rate);
            thread::spawn(move || rate.take(Duration::ZERO, 1, Duration::ZERO).is_ok())
        });
        let taken = takers.into_iter().map(|taker| taker.join().unwrap());
        assert_eq!(taken.filter(|taken| *taken).count(), 2);
    });
}

fn holders(holding: &Arc<Holding>) -> Holders {
    Holders { first: Arc::clone(holding), others: Vec::new() }
}

type Entering = Pin<Box<dyn Future<Output = Result<Share, NoShare>> + Send>>;

fn enter(shares: &Arc<Shares>, holding: &Arc<Holding>) -> Entering {
    let (shares, holders) = (Arc::clone(shares), holders(holding));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
    Box::pin(async move { shares.enter(holders, Priority::Write, deadline).await })
}

fn poll(entering: &mut Entering) -> Poll<Result<Share, NoShare>> {
    pin!(entering).as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// One leaves while others come: nobody is left waiting before a free slot, no slot has two, and none is lost.
#[test]
fn whoever_waits_gets_the_slot_that_is_given_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    loom::model(|| {
        let shares = Arc::new(Shares::new(1, 100, Box::new(|| 1)));
        let holdings: [Arc<Holding>; 2] = Default::default();
        let Poll::Ready(Ok(first)) = poll(&mut enter(&shares, &holdings[0])) else {
            panic!("no free slot")
        };
        let (other, holding) = (Arc::clone(&shares), Arc::clone(&holdings[1]));
        let comes = thread::spawn(move || {
            let mut entering = enter(&other, &holding);
            match poll(&mut entering) {
                Poll::Ready(entered) => drop(entered.map_err(|_| ()).unwrap()),
                Poll::Pending => return Some(entering),
            }
            None
        });
        drop(first);
        if let Some(mut entering) = comes.join().unwrap() {
            let Poll::Ready(Ok(share)) = poll(&mut entering) else {
                panic!("it waits before a free slot")
            };
            assert_eq!(shares.taken(), 1);
            drop(share);
        }
        assert_eq!(shares.taken(), 0);
    });
}

/// Two organisations come at once, and there is one slot.
#[test]
fn a_slot_is_given_to_one_of_two_who_come_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    loom::model(|| {
        let shares = Arc::new(Shares::new(1, 100, Box::new(|| 1)));
        let (other, holding) = (Arc::clone(&shares), Arc::default());
        let comes = thread::spawn(move || {
            let mut entering = enter(&other, &holding);
            let polled = poll(&mut entering);
            (entering, polled)
        });
        let mut here = enter(&shares, &Arc::default());
        let first = poll(&mut here);
        let (mut there, second) = comes.join().unwrap();
        assert!(first.is_pending() || second.is_pending(), "both have the slot");
        assert_eq!(shares.taken(), 1);
        let (waiting, entered) =
            if first.is_pending() { (&mut here, second) } else { (&mut there, first) };
        let Poll::Ready(Ok(entered)) = entered else { panic!("nobody has the slot") };
        drop(entered);
        let Poll::Ready(Ok(share)) = poll(waiting) else { panic!("it waits before a free slot") };
        drop(share);
        assert_eq!(shares.taken(), 0);
    });
}
