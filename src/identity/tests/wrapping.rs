//! Stories of answers behind tokens: given out once, wrapped anew, and no more of them than there may be.

use super::*;
use crate::model::{Response, TokenId, WrapInfo};

fn answer() -> Response {
    let data = [("secret".to_owned(), serde_json::Value::from("behind a token"))].into_iter().collect();
    Response::data(data)
}

impl House {
    async fn wrapped(&self, answer: Response) -> WrapInfo {
        match self.wrap_in("team", &self.root, answer).await.unwrap() {
            Response::Wrapped(info) => info,
            other => panic!("{other:?}"),
        }
    }

    async fn wrap_in(&self, namespace: &str, by: &Secret, answer: Response) -> Result<Response, Fault> {
        let namespace = Namespace::from_path(namespace);
        let place = self.identity.place(&self.caller(by), &namespace)?;
        self.identity.wrap(place, &namespace, "pki/issue/web".into(), 60, answer).await
    }

    async fn refused_wrap(&self, namespace: &str, by: &Secret) -> String {
        match self.wrap_in(namespace, by, answer()).await {
            Err(Fault::QuotaExceeded { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    async fn unwrapped(&self, token: &Secret) -> Result<Response, Fault> {
        self.identity.unwrap(self.identity.identify(token)).await
    }

    fn answers(&self) -> usize {
        self.store.list(&Namespace::root(), "wrapped", None, 1000).unwrap().len()
    }
}

#[tokio::test]
async fn an_answer_behind_a_token_is_given_out_once_across_a_restart() {
    let house = House::new().await;
    let info = house.wrapped(answer()).await;
    assert_eq!((info.ttl, info.creation_time, info.creation_path.as_str()), (60, START, "pki/issue/web"));
    assert!(info.wrapped_accessor.is_empty());
    let again = house.restarted();
    let known = again.identity.wrapping(again.identity.identify(&info.token)).unwrap();
    assert_eq!((known.path.as_str(), known.creation_ttl), ("pki/issue/web", 60));
    assert_eq!(again.unwrapped(&info.token).await, Ok(answer()));
    let gone = Err(Fault::invalid("wrapping token is not valid or does not exist"));
    for house in [&again, &again.restarted()] {
        assert_eq!(house.unwrapped(&info.token).await, gone);
    }
    assert_eq!(again.unwrapped(&house.root).await, gone, "no answer is behind it");
    assert_eq!((house.stored(), house.answers()), (1, 0));
}

#[tokio::test]
async fn a_token_behind_a_token_is_told_by_its_accessor_and_can_be_wrapped_anew() {
    let house = House::new().await;
    let auth = house.create(&house.root, policies(&["a"])).await.unwrap();
    let made = Response::Auth { auth: auth.clone(), warnings: vec!["w".into()] };
    let first = house.wrapped(made.clone()).await;
    assert_eq!(first.wrapped_accessor, auth.accessor);
    house.pass(50);
    let Ok(Response::Wrapped(second)) = house.identity.rewrap(house.identity.identify(&first.token)).await else {
        panic!("it is wrapped anew")
    };
    assert_eq!((second.ttl, second.creation_path.as_str()), (60, "pki/issue/web"));
    assert_eq!((second.wrapped_accessor.as_str(), house.answers()), (auth.accessor.as_str(), 1));
    house.pass(50);
    assert!(house.unwrapped(&first.token).await.is_err());
    assert_eq!(house.restarted().unwrapped(&second.token).await, Ok(made));
}

#[tokio::test]
async fn what_is_no_data_is_not_wrapped_and_what_is_not_taken_goes_with_its_token() {
    let house = House::new().await;
    for plain in [Response::Empty, Response::Bare { status: 200, body: serde_json::json!({}) }] {
        assert_eq!(house.wrap_in("", &house.root, plain.clone()).await, Ok(plain));
    }
    let large = Response::keys(vec!["x".repeat(2 << 20)]);
    assert!(matches!(house.wrap_in("", &house.root, large).await, Err(Fault::TooLarge { .. })));
    let expired = house.wrapped(answer()).await;
    let used = house.wrapped(answer()).await;
    let lost = house.wrapped(answer()).await;
    // Used for something else, a token is used up, and so is what it holds.
    let caller = house.caller(&used.token);
    assert_eq!(authorize(&house.identity, &caller), Err(Fault::PermissionDenied));
    let counted = house.identity.counted(&caller).unwrap();
    let spent = house.identity.spend(&counted).unwrap().take().await.unwrap();
    assert!(house.unwrapped(&used.token).await.is_err());
    house.identity.revoke(spent.unwrap()).await.unwrap();
    assert_eq!(house.answers(), 2);
    house.store.commit(vec![Write::Delete { key: token::key(house.identity.identify(&lost.token)) }]).await.unwrap();
    house.restarted();
    assert_eq!(house.answers(), 1);
    house.pass(60);
    assert!(house.unwrapped(&expired.token).await.is_err());
    house.identity.end_due().await;
    assert_eq!(house.answers(), 0);
}

#[test]
fn of_many_that_ask_at_once_one_gets_the_answer() {
    let block_on = |future| tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    let (house, info) = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let house = House::new().await;
        let info = house.wrapped(answer()).await;
        (house, info)
    });
    let id = house.identity.identify(&info.token);
    let got: usize = std::thread::scope(|scope| {
        let asked = || block_on(house.identity.unwrap(id)).is_ok();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(asked)).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(got, 1);
}

fn few() -> Limits {
    Limits { wrapped_answers_per_asker: 2, wrapped_answers_per_namespace: 5, ..Limits::default() }
}

#[tokio::test]
async fn who_asks_has_a_share_of_the_answers_kept_and_no_tokens_go_for_them() {
    let house = House::bounded(Limits { client_tokens_per_namespace: 4, ..few() }).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(house.create_in("a", &house.root, policies(&["x"])).await.unwrap().client_token);
    }
    for _ in 0..2 {
        house.wrap_in("a", &tokens[0], answer()).await.unwrap();
    }
    let told = house.refused_wrap("a", &tokens[0]).await;
    assert!(told.starts_with("2 (wrapped_answers_per_asker) of your answers"), "{told}");
    // The others have theirs, here and below, until all of the namespace's places are taken.
    house.wrap_in("a/b", &tokens[1], answer()).await.unwrap();
    house.wrap_in("a", &tokens[1], answer()).await.unwrap();
    house.refused_wrap("a", &tokens[1]).await;
    let Ok(Response::Wrapped(last)) = house.wrap_in("a", &tokens[2], answer()).await else { panic!("there is room") };
    let told = house.refused_wrap("a/b", &tokens[2]).await;
    assert!(told.contains("5 (wrapped_answers_per_namespace) of answers of namespace a/ and those below"), "{told}");
    house.wrap_in("b", &house.root, answer()).await.unwrap();
    // No token less for that.
    house.create_in("a", &house.root, policies(&["x"])).await.unwrap();
    // All are counted again after a restart; what is taken makes room.
    let again = house.restarted_with(&few());
    again.refused_wrap("a", &tokens[2]).await;
    again.unwrapped(&last.token).await.unwrap();
    again.wrap_in("a", &tokens[2], answer()).await.unwrap();
    again.pass(60);
    again.identity.end_due().await;
    again.wrap_in("a", &tokens[0], answer()).await.unwrap();
}

#[tokio::test]
async fn all_that_a_users_logins_gave_has_one_share_and_so_has_the_user_without_a_token() {
    let house = House::bounded(few()).await;
    let login = Login {
        namespace: Namespace::from_path("a"),
        path: "auth/unix/login".into(),
        policies: vec!["x".into()],
        no_default_policy: true,
        display_name: String::new(),
        meta: [("uid".to_owned(), "1".to_owned())].into(),
        uid: Some(1),
        ttl: 600,
        max_ttl: 0,
        explicit_max_ttl: 0,
        period: 0,
        num_uses: 0,
    };
    let (first, _) = house.identity.login(login.clone()).await.unwrap();
    let (second, _) = house.identity.login(login).await.unwrap();
    let child = house.create_in("a", &first.client_token, Wish::default()).await.unwrap();
    house.wrap_in("a", &child.client_token, answer()).await.unwrap();
    house.wrap_in("a", &second.client_token, answer()).await.unwrap();
    for house in [&house, &house.restarted_with(&few())] {
        for token in [&first, &second, &child] {
            house.refused_wrap("a", &token.client_token).await;
        }
        let namespace = Namespace::from_path("a");
        assert!(house.identity.place(&caller(None), &namespace).is_err(), "user 1 without a token");
        let other = Caller::new(PeerCredentials { uid: 2, gid: 2, pid: None }, Wire::Http);
        assert!(house.identity.place(&other, &namespace).is_ok());
        house.wrap_in("b", &house.root, answer()).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_that_holds_an_answer_asks_in_the_name_of_who_had_it_kept() {
    let house = House::bounded(few()).await;
    let asker = house.create_in("a", &house.root, policies(&["x"])).await.unwrap().client_token;
    let Ok(Response::Wrapped(info)) = house.wrap_in("a", &asker, answer()).await else { panic!("there is room") };
    // As where it asks for what anyone may, and for that behind a token.
    let Ok(Response::Wrapped(below)) = house.wrap_in("a", &info.token, answer()).await else { panic!("there is room") };
    for token in [&asker, &info.token, &below.token] {
        house.refused_wrap("a", token).await;
    }
}

#[tokio::test]
async fn the_bytes_of_answers_are_bounded_and_a_place_is_given_back_where_there_is_none() {
    let limits = Limits { wrapped_bytes_per_asker: 3 << 20, wrapped_bytes_per_namespace: 4 << 20, ..Limits::default() };
    let house = House::bounded(limits).await;
    let other = house.create_in("a", &house.root, policies(&["x"])).await.unwrap().client_token;
    let large = || Response::keys(vec!["x".repeat(900 << 10)]);
    for _ in 0..100 {
        assert_eq!(house.wrap_in("a", &other, Response::Empty).await, Ok(Response::Empty));
        assert!(house.wrap_in("a", &other, Response::keys(vec!["x".repeat(2 << 20)])).await.is_err());
    }
    // What is under way holds as much as it may come to.
    let places: Vec<_> =
        (0..3).map(|_| house.identity.place(&house.caller(&other), &Namespace::from_path("a")).unwrap()).collect();
    let told = house.refused_wrap("a", &other).await;
    assert!(told.contains("3145728 bytes (wrapped_bytes_per_asker)"), "{told}");
    drop(places);
    for _ in 0..2 {
        house.wrap_in("a", &other, large()).await.unwrap();
    }
    house.wrap_in("a", &other, answer()).await.unwrap();
    for _ in 0..2 {
        house.wrap_in("a", &house.root, large()).await.unwrap();
    }
    let told = house.refused_wrap("a", &house.root).await;
    assert!(told.contains("4194304 bytes (wrapped_bytes_per_namespace)"), "{told}");
}

#[tokio::test]
async fn an_answer_is_wrapped_anew_where_no_more_fit() {
    let house = House::bounded(few()).await;
    let mut infos = vec![house.wrapped(answer()).await, house.wrapped(answer()).await];
    house.refused_wrap("team", &house.root).await;
    // Neither by who has as many as may be, nor by one whose bounds were lowered.
    let house =
        house.restarted_with(&Limits { wrapped_answers_per_namespace: 1, client_tokens_per_namespace: 1, ..few() });
    for _ in 0..3 {
        let Ok(Response::Wrapped(again)) = house.identity.rewrap(house.identity.identify(&infos[0].token)).await else {
            panic!("it is wrapped anew")
        };
        assert!(house.unwrapped(&infos[0].token).await.is_err());
        infos[0] = again;
    }
    house.refused_wrap("team", &house.root).await;
    for info in &infos {
        assert_eq!(house.unwrapped(&info.token).await, Ok(answer()));
    }
    house.wrapped(answer()).await;
}

#[tokio::test]
async fn an_answer_stays_where_it_is_when_it_cannot_be_wrapped_anew() {
    let house = House::new().await;
    let info = house.wrapped(answer()).await;
    let id = house.identity.identify(&info.token);
    // The store has a record in the place of the new token's, so that the change is refused as a whole.
    let secret = Secret::from("hvs.new");
    let taken = token::key(house.identity.identify(&secret));
    house.store.commit(vec![Write::Put { key: taken, version: 2, value: b"{}".to_vec() }]).await.unwrap();
    assert!(house.identity.rewrap_as(id, secret.clone()).await.is_err());
    assert_eq!(house.identity.wrapping(id).unwrap().accessor, info.accessor);
    assert!(house.identity.wrapping(house.identity.identify(&secret)).is_err());
    let again = house.restarted();
    assert_eq!(again.identity.wrapping(id).unwrap().uses(), Some(1));
    assert_eq!(house.unwrapped(&info.token).await, Ok(answer()));
    assert!(house.unwrapped(&info.token).await.is_err());
    assert_eq!((house.stored(), house.answers()), (1, 0));
    assert_eq!(
        house.identity.wrapping(TokenId([7; 32])).unwrap_err(),
        Fault::invalid("wrapping token is not valid or does not exist")
    );
}
