//! Random clients: what holds for every order of requests, answers and changes.

use super::*;

/// A client that does as the protocol says, over random views: it always ends with exactly the newest view, never
/// has two responses of a type to answer, and no route it has ever names a cluster or endpoints it does not have.
#[test]
fn a_client_always_converges_and_never_has_a_dangling_route() {
    for seed in 0..300 {
        converge(seed);
    }
}

fn converge(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let random_view = |random: &mut Random, before: Option<&View>| {
        let clusters: Vec<u64> = (0..5).filter(|_| random.below(2) == 0).collect();
        let version = |random: &mut Random| random.below(2);
        let mut parts = [String::new(), String::new(), "out=1>http".into(), String::new()];
        for cluster in &clusters {
            parts[0] += &format!("c{cluster}={}>c{cluster} ", version(random));
            parts[1] += &format!("c{cluster}={} ", version(random));
        }
        // A route's version lists the clusters it names.
        parts[3] = format!("http=.{}", clusters.iter().map(|c| format!("c{c}.")).collect::<String>());
        view([&parts[0], &parts[1], &parts[2], &parts[3]], before)
    };
    let mut newest = random_view(&mut random, None);
    let mut session = Session::new(newest.clone(), seed.is_multiple_of(2), Instant::now());
    let mut client = Client::default();
    let mut to_server: Vec<(ResourceType, Vec<String>, Vec<String>, String)> =
        [Cluster, Listener].map(|kind| (kind, Vec::new(), Vec::new(), String::new())).into();
    let mut changes_left = 20;
    loop {
        if changes_left > 0 && random.below(3) == 0 {
            changes_left -= 1;
            newest = random_view(&mut random, Some(&newest));
            session.adopt(newest.clone());
        } else if to_server.is_empty() {
            if changes_left == 0 {
                break;
            }
        } else {
            let (kind, subscribe, unsubscribe, nonce) = to_server.remove(0);
            let request = Request {
                subscribe: &subscribe,
                unsubscribe: &unsubscribe,
                nonce: &nonce,
                ..Request::default()
            };
            session.receive(kind, &request).unwrap();
        }
        while let Some(response) = session.next_response(Instant::now()) {
            client.take(&response, &mut to_server, seed);
        }
    }
    assert!(session.is_settled(), "seed {seed}: {session:?}");
    for kind in ResourceType::ALL {
        let has = &client.has[kind as usize];
        let wanted: BTreeMap<_, _> =
            newest.of(kind).resources.values().map(|r| (r.name.to_string(), r.version.to_string())).collect();
        assert_eq!(*has, wanted, "seed {seed}: {kind:?}");
    }
}

/// Whatever a client sends: nonces that are stale, made up or repeated, names it has, never had, or that are not
/// there. There is never a second unanswered response of a type, and no nonce comes twice.
#[test]
fn no_sequence_of_requests_confuses_a_session() {
    for seed in 1..500 {
        let mut random = Random(seed);
        let mut stream = Stream::new(SHOP, seed.is_multiple_of(2));
        let (mut unanswered, mut nonces) = ([0; ResourceType::COUNT], BTreeSet::new());
        for _ in 0..100 {
            let kind = ResourceType::ALL[random.below(5) as usize];
            let names = ["*", "cart", "pay", "http", "in", "no", ""];
            let some = |random: &mut Random| -> Vec<String> {
                let count = random.below(3);
                (0..count).map(|_| names[random.below(7) as usize].to_owned()).collect()
            };
            let (subscribe, unsubscribe) = (some(&mut random), some(&mut random));
            let nonce = random.below(stream.session.nonce + 3).to_string();
            let nonce = if random.below(3) == 0 { "" } else { &nonce };
            let error = (random.below(3) == 0).then_some("no good");
            let initial_versions =
                if random.below(4) == 0 { vec![("cart", "1"), ("old", "x")] } else { Vec::new() };
            let request =
                Request { subscribe: &subscribe, unsubscribe: &unsubscribe, initial_versions, nonce, error };
            let answer = stream.session.receive(kind, &request).unwrap();
            if answer != Answer::None {
                unanswered[kind as usize] -= 1;
            }
            if random.below(5) == 0 {
                let endpoints = if random.below(2) == 0 { "cart=1" } else { "cart=2 pay=1" };
                stream.view = view([SHOP[0], endpoints, SHOP[2], SHOP[3]], Some(&stream.view));
                stream.session.adopt(stream.view.clone());
            }
            while let Some(response) = stream.session.next_response(stream.now) {
                unanswered[response.kind as usize] += 1;
                assert!(nonces.insert(response.nonce), "seed {seed}");
            }
            assert!(unanswered.iter().all(|count| (0..=1).contains(count)), "seed {seed}: {unanswered:?}");
        }
    }
}

#[derive(Default)]
struct Client {
    has: [BTreeMap<String, String>; ResourceType::COUNT],
    asked: [BTreeSet<String>; ResourceType::COUNT],
}

impl Client {
    fn take(
        &mut self,
        response: &Response,
        to_server: &mut Vec<(ResourceType, Vec<String>, Vec<String>, String)>,
        seed: u64,
    ) {
        let has = &mut self.has[response.kind as usize];
        let is_child = matches!(response.kind, Endpoint | Route);
        for resource in &response.resources {
            // It may have been sent before the server knew that it is not wanted any more.
            if is_child && !self.asked[response.kind as usize].contains(resource.name.as_ref()) {
                continue;
            }
            has.insert(resource.name.to_string(), resource.version.to_string());
        }
        for name in &response.removed {
            has.remove(name.as_ref());
        }
        if let Some(child) = response.kind.child() {
            let wanted: BTreeSet<String> = match response.kind {
                Listener => has.keys().map(|_| "http".to_owned()).collect(),
                _ => has.keys().cloned().collect(),
            };
            let asked = &mut self.asked[child as usize];
            let subscribe: Vec<_> = wanted.difference(asked).cloned().collect();
            let unsubscribe: Vec<_> = asked.difference(&wanted).cloned().collect();
            for name in &unsubscribe {
                self.has[child as usize].remove(name);
            }
            *asked = wanted;
            to_server.push((child, subscribe, unsubscribe, String::new()));
        }
        to_server.push((response.kind, Vec::new(), Vec::new(), response.nonce.clone()));
        let routes = self.has[Route as usize].get("http").cloned().unwrap_or_default();
        for cluster in routes.split('.').filter(|name| !name.is_empty()) {
            for kind in [Cluster, Endpoint] {
                let there = self.has[kind as usize].contains_key(cluster);
                assert!(there, "seed {seed}: route names {cluster}, {kind:?} is not there");
            }
        }
    }
}

/// xorshift, enough to choose.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
