//! Stories of an issuer that gives out numbers.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::config::KmsService;
use crate::model::CloudService;
use crate::telemetry::Telemetry;

/// Gives out the next number each time, or the same, or none.
#[derive(Default)]
struct Numbers {
    asked: AtomicU64,
    stays: AtomicBool,
    refuses: AtomicBool,
    hangs: AtomicBool,
    /// Seconds for which they are good beyond an hour.
    more: AtomicU64,
}

impl Issuer for Numbers {
    type Credentials = u64;
    type Error = std::io::Error;

    async fn issue(&self) -> Result<Issued<u64>, std::io::Error> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.refuses.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("none are given out"));
        }
        let more = self.more.load(Ordering::Relaxed);
        let credentials = if self.stays.load(Ordering::Relaxed) { 1 } else { asked };
        Ok(Issued { credentials, end: Some(SystemTime::now() + Duration::from_secs(3600 + more)) })
    }

    fn late(_: Duration) -> std::io::Error {
        std::io::ErrorKind::TimedOut.into()
    }

    fn again(error: &std::io::Error) -> std::io::Error {
        std::io::Error::new(error.kind(), error.to_string())
    }

    fn why(error: &std::io::Error) -> String {
        error.to_string()
    }

    fn is_same(one: &u64, other: &u64) -> bool {
        one == other
    }
}

fn service() -> (Telemetry, Arc<Service>) {
    let telemetry = Telemetry::new();
    let service = Service::start(&KmsService::new(CloudService::AwsKms), &telemetry).unwrap();
    (telemetry, service)
}

fn story<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run)
}

fn keeper(service: &Service, owner: Owner) -> Arc<Keeper<Numbers>> {
    Arc::new(Keeper::new(Numbers::default(), owner, service))
}

#[test]
fn refused_credentials_are_fetched_anew_once_for_all_who_had_them() {
    let (_, service) = service();
    let keeper = keeper(&service, Owner::daemon(""));
    story(async {
        assert_eq!(keeper.current().await.unwrap(), 1);
        let generation = keeper.generation();
        assert!(keeper.renew(generation).await);
        // Another who had the old ones.
        assert!(keeper.renew(generation).await);
        assert_eq!((keeper.current().await.unwrap(), keeper.issuer().asked.load(Ordering::Relaxed)), (2, 2));
        // The new ones are refused as well: that is not asked for again and again.
        assert!(!keeper.renew(keeper.generation()).await);
        assert_eq!(keeper.issuer().asked.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn the_same_credentials_again_are_no_others() {
    let (_, service) = service();
    let keeper = keeper(&service, Owner::daemon(""));
    keeper.issuer().stays.store(true, Ordering::Relaxed);
    story(async {
        keeper.current().await.unwrap();
        assert!(!keeper.renew(keeper.generation()).await);
        assert_eq!(keeper.issuer().asked.load(Ordering::Relaxed), 2);
    });
}

/// As AWS's client has it with an instance's credentials that are not renewed.
#[test]
fn the_same_credentials_are_not_good_for_longer_by_the_issuers_word_alone() {
    let (telemetry, service) = service();
    let keeper = keeper(&service, Owner::daemon(""));
    keeper.issuer().stays.store(true, Ordering::Relaxed);
    story(async {
        assert!(keeper.fetch_alone().await.unwrap());
        assert!(keeper.fetch_alone().await.unwrap());
        keeper.issuer().more.store(900, Ordering::Relaxed);
        // However often they come.
        for _ in 0..3 {
            assert!(!keeper.fetch_alone().await.unwrap());
            assert_eq!(keeper.current().await.unwrap(), 1);
            assert!(keeper.watched.left().unwrap() <= Duration::from_secs(3600));
        }
        keeper.issuer().stays.store(false, Ordering::Relaxed);
        assert!(keeper.fetch_alone().await.unwrap());
        assert!(keeper.watched.left().unwrap() > Duration::from_secs(3600));
    });
    let text = telemetry.render();
    assert!(text.contains("owner=\"daemon\",identity=\"own\",result=\"failed\"} 3"), "{text}");
}

/// Whoever asked may have no time left; others wait for the new ones.
#[test]
fn renewal_goes_on_when_whoever_asked_has_left() {
    let (_, service) = service();
    let keeper = keeper(&service, Owner::daemon(""));
    story(async {
        keeper.current().await.unwrap();
        let generation = keeper.generation();
        let turn = keeper.turn.lock().await;
        let asked = tokio::time::timeout(Duration::ZERO, keeper.renew(generation));
        assert!(asked.await.is_err());
        drop(turn);
        while keeper.generation() == generation {
            tokio::task::yield_now().await;
        }
    });
}

/// A failure of which a whole [`FAILED`] has gone by.
fn wait_out(keeper: &Keeper<Numbers>) {
    let mut failed = keeper.failed.lock();
    let (since, _) = failed.as_mut().unwrap();
    *since = since.checked_sub(FAILED).unwrap();
}

#[test]
fn an_issuer_that_refuses_is_asked_once_by_however_many() {
    let (_, service) = service();
    let keeper = keeper(&service, Owner::key("AKID"));
    let asked = || keeper.issuer().asked.load(Ordering::Relaxed);
    keeper.issuer().refuses.store(true, Ordering::Relaxed);
    story(async {
        let all = futures_util::future::join_all((0..50).map(|_| keeper.current())).await;
        assert!(all.iter().all(|one| one.as_ref().is_err_and(|error| error.to_string() == "none are given out")));
        assert_eq!(asked(), 1);
        assert!(keeper.current().await.is_err());
        assert_eq!(asked(), 1);
        wait_out(&keeper);
        assert!(keeper.current().await.is_err());
        assert_eq!(asked(), 2);
        // What is fetched beside ends it.
        keeper.issuer().refuses.store(false, Ordering::Relaxed);
        assert!(keeper.fetch_alone().await.unwrap());
        assert_eq!(keeper.current().await.unwrap(), 3);
    });
}

#[test]
fn nobody_waits_behind_an_issuer_that_failed_and_hangs_now() {
    let (_, service) = service();
    let keeper = keeper(&service, Owner::key("AKID"));
    keeper.issuer().refuses.store(true, Ordering::Relaxed);
    story(async {
        assert!(keeper.current().await.is_err());
        wait_out(&keeper);
        keeper.issuer().hangs.store(true, Ordering::Relaxed);
        let first = tokio::time::timeout(Duration::ZERO, keeper.current());
        assert!(first.await.is_err());
        while keeper.turn.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        // Whoever asked has left, and the issuer is asked all the same.
        let told = tokio::time::timeout(Duration::from_secs(5), keeper.current()).await;
        assert_eq!(told.unwrap().unwrap_err().to_string(), "none are given out");
        assert_eq!(keeper.issuer().asked.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn what_fails_is_seen_while_those_at_hand_are_good() {
    let (telemetry, service) = service();
    let keeper = keeper(&service, Owner::key("AKID"));
    story(async {
        keeper.current().await.unwrap();
        keeper.issuer().refuses.store(true, Ordering::Relaxed);
        assert!(keeper.fetch_alone().await.is_err());
        assert_eq!(keeper.current().await.unwrap(), 1);
    });
    let text = telemetry.render();
    let labels = "service=\"awskms\",owner=\"managed_key\",identity=\"AKID\"";
    for result in ["ok", "failed"] {
        let line = format!("keyway_service_credential_fetches_total{{{labels},result=\"{result}\"}} 1");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(text.contains(&format!("keyway_service_credentials_left_seconds{{{labels}}} 3")), "{text}");
    drop(keeper);
    assert!(!telemetry.render().contains("AKID"));
}

#[test]
fn credentials_are_fetched_before_they_end_and_now_and_then() {
    let seconds = Duration::from_secs;
    assert_eq!(due(Some(seconds(24 * 3600))), EVERY);
    assert_eq!(due(Some(seconds(1300))), seconds(700));
    assert_eq!(due(Some(seconds(1000))), seconds(500));
    assert_eq!(due(Some(seconds(4))), PAUSE_FIRST);
    assert_eq!(due(None), EVERY);
}

#[test]
fn others_credentials_are_tried_ever_more_seldom() {
    let (_, service) = service();
    let [own, others] = [Owner::daemon(""), Owner::key("AKID")].map(|owner| keeper(&service, owner));
    assert_eq!((own.pause(1), others.pause(1)), (PAUSE_FIRST * 2, PAUSE_FIRST * 2));
    assert_eq!((own.pause(40), others.pause(40)), (PAUSE_MAX, PAUSE_OTHERS));
}
