//! The span that a task works on, for work whose calls go through many hands: a reconcile. The data
//! path passes its span as an argument instead, for there a look at the task would cost every request.

use std::cell::RefCell;

use super::Span;

tokio::task_local! {
    static CURRENT: RefCell<Span>;
}

/// Runs work as that of a span, which ends with it.
pub async fn within<T>(span: Span, work: impl Future<Output = T>) -> T {
    if span.context().is_none() {
        return work.await;
    }
    CURRENT.scope(RefCell::new(span), work).await
}

/// A step of what the task works on; one that records nothing outside of [`within`].
pub fn step(name: &'static str) -> Span {
    CURRENT.try_with(|span| span.borrow().child(name)).unwrap_or_default()
}

/// A request of ours that is part of what the task works on; likewise.
pub fn request(name: &'static str) -> Span {
    CURRENT.try_with(|span| span.borrow().client(name)).unwrap_or_default()
}

/// Changes the span that the task works on, if there is any.
pub fn note(change: impl FnOnce(&mut Span)) {
    let _ = CURRENT.try_with(|span| change(&mut span.borrow_mut()));
}
