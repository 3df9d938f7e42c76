//! Group commit: orders that arrive while others are being written are written together.
//!
//! A transaction costs its round trips and the wait for the disk, whether it holds one order or a hundred. The first
//! order goes at once; whoever arrives meanwhile waits for at most the transactions before it and shares the next.
//! Nobody waits for company.
//!
//! The work is done by tasks of its own: a client that goes away takes at most its own order with it, and only while
//! that still waits.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::batches::{Batches, Counts};
use super::{PlaceError, Placed, StoreError};
use crate::order::NewOrder;

/// Most orders in one transaction: locks are held for as long as all of them take.
pub(super) const MOST_TOGETHER: usize = 128;

/// Most orders that may wait. Those at the end then wait for eight transactions; more are told to come back.
pub(super) const MOST_WAITING: usize = 8 * MOST_TOGETHER;

/// Longest time for one batch, above all limits of the database itself: only a connection that died without a word
/// takes as long.
const LONGEST: Duration = Duration::from_secs(15);

/// Writes orders, in the order of their arrival. One answer for each.
pub(super) trait PlaceAll: Send + Sync + 'static {
    /// Places what can be placed; the failure of one order is no other's.
    fn place_all(&self, orders: &[NewOrder]) -> impl Future<Output = Vec<Result<Placed, PlaceError>>> + Send;
}

struct Waiting {
    order: NewOrder,
    answer: oneshot::Sender<Result<Placed, PlaceError>>,
}

/// Orders that wait, and whoever writes them.
pub(super) struct Group<D> {
    database: Arc<D>,
    waiting: Mutex<VecDeque<Waiting>>,
    // There is one permit. It is given back under the lock of `waiting`.
    writer: Arc<Semaphore>,
    batches: Batches,
}

impl<D> std::fmt::Debug for Group<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl<D: PlaceAll> Group<D> {
    /// A group whose orders go to `database`.
    pub(super) fn new(database: Arc<D>) -> Arc<Self> {
        Arc::new(Self {
            database,
            waiting: Mutex::default(),
            writer: Arc::new(Semaphore::new(1)),
            batches: Batches::default(),
        })
    }

    /// Places an order together with whatever else arrives.
    ///
    /// # Errors
    /// Its own refusal, the failure of the database, or that too many wait already.
    pub(super) async fn place(self: &Arc<Self>, order: NewOrder) -> Result<Placed, PlaceError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= MOST_WAITING {
                // Clients that have gone do not keep others out.
                waiting.retain(|waiting| !waiting.answer.is_closed());
            }
            if waiting.len() >= MOST_WAITING {
                return Err(PlaceError::Overloaded);
            }
            waiting.push_back(Waiting { order, answer });
            match Arc::clone(&self.writer).try_acquire_owned() {
                Ok(permit) => drop(tokio::spawn(Arc::clone(self).write(permit))),
                Err(TryAcquireError::NoPermits) => {}
                Err(TryAcquireError::Closed) => waiting.clear(),
            }
        }
        // Only a shop that has ended drops an order without an answer.
        answered.await.unwrap_or_else(|_| Err(StoreError::Interrupted.into()))
    }

    /// Resolves when every order is written; none is taken any more.
    pub(super) async fn finish(&self) {
        // The writer gives its permit back only when nobody waits.
        let permit = self.writer.acquire().await;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.writer.close();
        waiting.clear();
        drop(permit);
    }

    /// How large the batches were, and how many orders wait.
    pub(super) fn counts(&self) -> Counts {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.batches.counts(waiting as u64)
    }

    /// Writes batch after batch until nobody waits.
    async fn write(self: Arc<Self>, permit: OwnedSemaphorePermit) {
        let mut permit = Some(permit);
        loop {
            let (orders, answers) = self.next(&mut permit);
            if permit.is_none() {
                return;
            }
            if orders.is_empty() {
                continue;
            }
            self.batches.count(orders.len());
            for (answer, placed) in answers.into_iter().zip(self.place_together(&orders).await) {
                // Whoever asked may be gone.
                drop(answer.send(placed));
            }
            // Requests that have arrived already come along with the next; others are not waited for.
            tokio::task::yield_now().await;
        }
    }

    /// The next orders, without those whose clients went away; gives the permit back if nobody waits.
    fn next(
        &self,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> (Vec<NewOrder>, Vec<oneshot::Sender<Result<Placed, PlaceError>>>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            drop(permit.take());
        }
        let together = waiting.len().min(MOST_TOGETHER);
        waiting
            .drain(..together)
            .filter(|waiting| !waiting.answer.is_closed())
            .map(|waiting| (waiting.order, waiting.answer))
            .unzip()
    }

    /// One answer for each order, whatever happens.
    async fn place_together(&self, orders: &[NewOrder]) -> Vec<Result<Placed, PlaceError>> {
        let mut placing = pin!(tokio::time::timeout(LONGEST, self.database.place_all(orders)));
        // A defect ends only this batch. Whatever it leaves behind is this future's own and is dropped with it.
        let caught =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| placing.as_mut().poll(context))) {
                Ok(polled) => polled.map(Ok),
                Err(_) => {
                    tracing::error!(orders = orders.len(), "writing orders failed in an unforeseen way");
                    Poll::Ready(Err(StoreError::Interrupted))
                }
            });
        let error = match caught.await {
            Ok(Ok(answers)) if answers.len() == orders.len() => return answers,
            Ok(Ok(_)) => StoreError::Unreadable("not one answer for each order"),
            Ok(Err(_)) => StoreError::Silent,
            Err(interrupted) => interrupted,
        };
        error.for_each(orders.len()).map(|error| Err(error.into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Order;
    use crate::store::shelf::Bill;
    use jiff::Timestamp;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    /// The customer whose order is the end of whoever writes it.
    const DEFECT: i64 = 1_000_000;

    /// Writes a batch whenever it is allowed to.
    #[derive(Default)]
    struct Gate {
        open: Notify,
        began: Notify,
        customers: Mutex<Vec<Vec<i64>>>,
    }

    impl PlaceAll for Gate {
        async fn place_all(&self, orders: &[NewOrder]) -> Vec<Result<Placed, PlaceError>> {
            let customers: Vec<i64> = orders.iter().filter_map(|order| order.customer_id).collect();
            let defect = customers.contains(&DEFECT);
            self.customers.lock().unwrap().push(customers);
            self.began.notify_one();
            self.open.notified().await;
            assert!(!defect, "a defect");
            let bill = || Bill { items: Vec::new(), total_minor: 0 };
            orders.iter().map(|order| Ok(Placed::New(bill().into_order(order, 1)))).collect()
        }
    }

    fn order(customer: i64) -> NewOrder {
        let body = format!(r#"{{"items":[{{"productId":1,"quantity":1}}],"customerId":{customer}}}"#);
        NewOrder::read(body.as_bytes(), None, "s".to_owned(), Timestamp::UNIX_EPOCH).unwrap()
    }

    type Asked = JoinHandle<Result<Placed, PlaceError>>;

    /// Sends an order and resolves when it waits or is being written.
    async fn ask(group: &Arc<Group<Gate>>, customer: i64) -> Asked {
        let group = Arc::clone(group);
        let asked = tokio::spawn(async move { group.place(order(customer)).await });
        tokio::task::yield_now().await;
        asked
    }

    fn customer(placed: Result<Placed, PlaceError>) -> i64 {
        let Ok(Placed::New(Order { customer_id: Some(customer), .. })) = placed else { panic!("{placed:?}") };
        customer
    }

    fn group() -> Arc<Group<Gate>> {
        Group::new(Arc::new(Gate::default()))
    }

    #[tokio::test]
    async fn the_first_goes_at_once_and_the_others_share_the_next() {
        let group = group();
        let first = ask(&group, 1).await;
        group.database.began.notified().await;
        let others = [ask(&group, 2).await, ask(&group, 3).await, ask(&group, 4).await];
        assert_eq!(group.counts().waiting, 3);
        group.database.open.notify_one();
        assert_eq!(customer(first.await.unwrap()), 1);
        group.database.open.notify_one();
        for (asked, expected) in others.into_iter().zip(2..) {
            assert_eq!(customer(asked.await.unwrap()), expected);
        }
        assert_eq!(*group.database.customers.lock().unwrap(), [vec![1], vec![2, 3, 4]]);
        let counts = group.counts();
        assert_eq!((counts.buckets, counts.orders), ([1, 0, 1, 0, 0, 0, 0, 0], 4));
    }

    #[tokio::test]
    async fn who_leaves_while_waiting_orders_nothing() {
        let group = group();
        let first = ask(&group, 1).await;
        group.database.began.notified().await;
        let (gone, stays) = (ask(&group, 2).await, ask(&group, 3).await);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        // Who leaves later takes nobody along.
        first.abort();
        group.database.open.notify_one();
        group.database.began.notified().await;
        group.database.open.notify_one();
        assert_eq!(customer(stays.await.unwrap()), 3);
        assert_eq!(*group.database.customers.lock().unwrap(), [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn a_defect_ends_its_batch_and_nothing_else() {
        let group = group();
        let broken = ask(&group, DEFECT).await;
        group.database.began.notified().await;
        let next = ask(&group, 2).await;
        group.database.open.notify_one();
        let error = broken.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
        group.database.began.notified().await;
        group.database.open.notify_one();
        assert_eq!(customer(next.await.unwrap()), 2);
        group.finish().await;
        let late = group.place(order(3)).await;
        assert!(matches!(late, Err(PlaceError::Store(StoreError::Interrupted))), "{late:?}");
    }

    #[tokio::test]
    async fn a_full_queue_sends_newcomers_away_and_batches_are_bounded() {
        let group = group();
        let first = ask(&group, 1).await;
        group.database.began.notified().await;
        let mut waiting = Vec::new();
        for customer in 0..MOST_WAITING {
            waiting.push(ask(&group, customer as i64 + 2).await);
        }
        assert!(matches!(group.place(order(1)).await, Err(PlaceError::Overloaded)));
        // Whoever has gone makes room.
        let gone = waiting.swap_remove(0);
        gone.abort();
        assert!(gone.await.is_err());
        waiting.push(ask(&group, 5000).await);
        let finished = tokio::spawn({
            let group = Arc::clone(&group);
            async move { group.finish().await }
        });
        for _ in 0..MOST_WAITING / MOST_TOGETHER {
            group.database.open.notify_one();
            group.database.began.notified().await;
            assert!(!finished.is_finished());
        }
        group.database.open.notify_one();
        customer(first.await.unwrap());
        for asked in waiting {
            customer(asked.await.unwrap());
        }
        finished.await.unwrap();
        let sizes: Vec<usize> = group.database.customers.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [vec![1], vec![MOST_TOGETHER; MOST_WAITING / MOST_TOGETHER]].concat());
    }
}
