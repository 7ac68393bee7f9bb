//! Rules against a slow and plain evaluator, on random policies and requests.
//!
//! It knows nothing of which way to err: a test says yes, no or perhaps (Kleene's logic), and only the last step makes
//! something of a perhaps. What a test says comes from the list of everything that a request could mean.

use std::{boxed::Box, collections::BTreeSet, format, string::String, vec, vec::Vec};

use super::{cidr, exactly, matching, not, some, web};
use crate::{
    Rng,
    forwarded::ForwardedTrust,
    peer::Peer,
    rbac::{Action, Condition, Facts, Policy, Ports, Rules},
    route::{HeaderMatch, HeaderTest, RouteScratch, test_request::TestRequest},
    string_match::{StringMatch, StringPattern},
};

/// Yes, no or perhaps: what it is in each of the meanings.
type Answers = BTreeSet<bool>;

const CASES: u64 = 20_000;

/// A request as plain text.
#[derive(Clone, Debug)]
struct Plain {
    method: &'static str,
    target: String,
    host: String,
    headers: Vec<(&'static str, String)>,
    /// What `Connection` names.
    ends_here: &'static str,
}

struct World<'a> {
    request: Option<&'a Plain>,
    peer: Option<&'a Peer>,
    facts: &'a Facts<'a>,
}

#[test]
fn rules_say_what_a_plain_evaluator_says() {
    let seed = std::env::var("RBAC_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(1..CASES, |seed| seed..seed + 1);
    let mut seen = [0u32; 4];
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let rules = rules(&mut rng);
        let plain = (rng.below(8) > 0).then(|| request(&mut rng));
        let peer = peer(&mut rng);
        let test = plain.as_ref().map(test_request);
        let facts = Facts {
            peer: peer.as_ref(),
            direct_remote: address(&mut rng).parse().unwrap(),
            remote: format!("{}:{}", address(&mut rng), 80 + rng.below(3)).parse().unwrap(),
            local: format!("{}:{}", address(&mut rng), 80 + rng.below(3)).parse().unwrap(),
            server_name: one_of(&mut rng, &["", "a.example", "A.Example", "b.example"]),
            request: test.as_ref().map(|test| (test.view(), ForwardedTrust::default())),
        };
        let world = World { request: plain.as_ref(), peer: peer.as_ref(), facts: &facts };
        let expected = world.verdict(&rules);
        let verdict = rules.evaluate(&facts, &mut RouteScratch::default());
        let got = (verdict.is_allowed(), verdict.policy.map(|name| String::from(&**name)));
        assert_eq!(got, expected, "RBAC_SEED={seed}: {rules:?}\n{plain:?}\n{facts:?}");
        seen[usize::from(got.0) * 2 + usize::from(got.1.is_some())] += 1;
    }
    if seed.is_none() {
        assert!(seen.iter().all(|count| *count > 1000), "every kind of verdict is among them: {seen:?}");
    }
}

impl World<'_> {
    fn verdict(&self, rules: &Rules) -> (bool, Option<String>) {
        let mut names: Vec<&Policy> = rules.policies().iter().collect();
        names.sort_by_key(|policy| policy.name.clone());
        let matched = names.into_iter().find(|policy| {
            let both = [&policy.permissions, &policy.principals];
            let both = both.map(|list| or(list.iter().map(|condition| self.answers(condition)).collect()));
            let answers = and(both.into());
            // A policy that allows must match for certain, one that denies or notes may do so perhaps.
            if rules.action() == Action::Allow { answers == yes() } else { answers.contains(&true) }
        });
        let is_allowed = match rules.action() {
            Action::Allow => matched.is_some(),
            Action::Deny => matched.is_none(),
            Action::Log => true,
        };
        (is_allowed, matched.map(|policy| String::from(&*policy.name)))
    }

    fn answers(&self, condition: &Condition) -> Answers {
        let ip = |block: &crate::cidr::Cidr, address| BTreeSet::from([block.contains(address)]);
        match condition {
            Condition::Always => yes(),
            Condition::All(of) => and(of.iter().map(|of| self.answers(of)).collect()),
            Condition::Any(of) => or(of.iter().map(|of| self.answers(of)).collect()),
            Condition::Not(of) => self.answers(of).into_iter().map(|answer| !answer).collect(),
            Condition::Header(header) => match self.request {
                Some(request) => request.header(header),
                None => BTreeSet::from([false, true]),
            },
            Condition::Path(test) => match self.request {
                Some(request) => BTreeSet::from([passes(test, request.path())]),
                None => BTreeSet::from([false, true]),
            },
            Condition::DestinationIp(block) => ip(block, self.facts.local.ip()),
            Condition::DestinationPort(ports) => BTreeSet::from([ports.contains(self.facts.local.port())]),
            Condition::RequestedServerName(test) => BTreeSet::from([same_name(test, self.facts.server_name)]),
            Condition::Authenticated(None) => BTreeSet::from([self.peer.is_some()]),
            Condition::Authenticated(Some(test)) => {
                let mut names: Vec<&str> = Vec::new();
                if let Some(peer) = self.peer {
                    names.extend(peer.uri_sans.iter().map(|name| &**name));
                    names.extend(peer.dns_sans.iter().map(|name| &**name).filter(|name| !name.contains('/')));
                    names.push(&peer.subject);
                }
                BTreeSet::from([names.into_iter().any(|name| passes(test, name))])
            }
            Condition::SourceIp(block) => ip(block, self.facts.remote.ip()),
            Condition::DirectRemoteIp(block) => ip(block, self.facts.direct_remote),
            Condition::RemoteIp(block) => {
                let mut told = self.request.into_iter().flat_map(|request| &request.headers);
                let told = told.rfind(|(name, _)| *name == "x-forwarded-for");
                let told = told.and_then(|(_, value)| value.parse().ok());
                ip(block, told.unwrap_or(self.facts.remote.ip()))
            }
        }
    }
}

impl Plain {
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// What a header matcher says, in each of the meanings that a request can have.
    fn header(&self, header: &HeaderMatch) -> Answers {
        let raw = HeaderMatch { invert: false, ..header.clone() };
        let (whole, more) = self.meanings(&header.name.to_ascii_lowercase());
        // What only some servers make of a value counts where it is what is looked for. Where it is not, it is no news.
        let more = more.into_iter().map(Some).filter(|value| is_value(header) && meaning_passes(&raw, value));
        whole.into_iter().chain(more).map(|value| meaning_passes(header, &value)).collect()
    }

    /// The values that a server may act on, `None` for one that sees none; and what only some make of them.
    fn meanings(&self, name: &str) -> (Vec<Option<String>>, Vec<String>) {
        match name {
            ":method" => (vec![Some(self.method.into())], vec![]),
            ":path" => (vec![Some(self.target.clone())], vec![self.path().into()]),
            ":authority" | "host" if self.host.is_empty() => (vec![None], vec![]),
            ":authority" | "host" => {
                let bare = self.host.split(':').next().unwrap();
                (vec![Some(self.host.clone())], vec![bare.into(), bare.trim_end_matches('.').into()])
            }
            _ => {
                let folded = |name: &str| {
                    name.to_ascii_lowercase().replace(|of: char| !of.is_ascii_alphanumeric(), "-")
                };
                let like = self.headers.iter().filter(|(of, _)| folded(of) == folded(name));
                let goes_on = !self.ends_here.eq_ignore_ascii_case(name);
                let is_missing = !like.clone().any(|(of, _)| goes_on && of.eq_ignore_ascii_case(name));
                let lines: Vec<&str> = like.map(|(_, value)| &**value).collect();
                let as_one = (lines.len() > 1).then(|| Some(lines.join(", ")));
                let elements = lines.iter().flat_map(|value| value.split(',')).map(|part| part.trim().into());
                let whole = lines.iter().map(|line| Some(String::from(*line))).chain(as_one);
                (is_missing.then_some(None).into_iter().chain(whole).collect(), elements.collect())
            }
        }
    }
}

fn is_value(header: &HeaderMatch) -> bool {
    !matches!(header.test, HeaderTest::Present(_))
}

/// What a matcher says of a header that has one value, or none.
fn meaning_passes(header: &HeaderMatch, value: &Option<String>) -> bool {
    let value = match value {
        None if header.missing_as_empty => &Some(String::new()),
        value => value,
    };
    let is_host = ["host", ":authority"].contains(&&*header.name.to_ascii_lowercase());
    match (&header.test, value) {
        (HeaderTest::Present(wanted), value) => (*wanted == value.is_some()) != header.invert,
        (_, None) => false,
        (HeaderTest::Value(test), Some(value)) if is_host => same_name(test, value) != header.invert,
        (HeaderTest::Value(test), Some(value)) => passes(test, value) != header.invert,
        (HeaderTest::Range(range), Some(value)) => {
            value.parse().is_ok_and(|number: i64| range.contains(&number)) != header.invert
        }
    }
}

fn passes(test: &StringMatch, value: &str) -> bool {
    let folded = |text: &str| if test.ignore_case { text.to_ascii_lowercase() } else { text.into() };
    let wanted = |wanted: &[u8]| folded(core::str::from_utf8(wanted).unwrap());
    match &test.pattern {
        StringPattern::Exact(text) => folded(value) == wanted(text),
        StringPattern::Prefix(text) => folded(value).starts_with(&wanted(text)),
        StringPattern::Suffix(text) => folded(value).ends_with(&wanted(text)),
        StringPattern::Contains(text) => folded(value).contains(&wanted(text)),
        // Of the one kind that is made below: `.*` and a text.
        StringPattern::Regex(regex) => value.ends_with(regex.pattern().trim_start_matches(".*")),
    }
}

fn same_name(test: &StringMatch, value: &str) -> bool {
    let is_regex = matches!(test.pattern, StringPattern::Regex(_));
    let test = StringMatch { ignore_case: true, ..test.clone() };
    passes(&test, value) || is_regex && passes(&test, &value.to_ascii_lowercase())
}

fn yes() -> Answers {
    BTreeSet::from([true])
}

/// Every combination of what they are.
fn and(answers: Vec<Answers>) -> Answers {
    let mut all = BTreeSet::new();
    if answers.iter().all(|of| of.contains(&true)) {
        all.insert(true);
    }
    if answers.iter().any(|of| of.contains(&false)) {
        all.insert(false);
    }
    all
}

fn or(answers: Vec<Answers>) -> Answers {
    let turned = |of: Answers| of.into_iter().map(|answer| !answer).collect::<Answers>();
    turned(and(answers.into_iter().map(turned).collect()))
}

fn one_of<'a>(rng: &mut Rng, texts: &[&'a str]) -> &'a str {
    texts[rng.below(texts.len() as u64) as usize]
}

fn address(rng: &mut Rng) -> &'static str {
    one_of(rng, &["10.0.0.1", "10.0.0.2", "10.1.0.1"])
}

const VALUES: &[&str] = &["", "user", "admin", "ADMIN", "5", "user,admin", "admin, user", "5,x"];
/// What only requests have, since no pattern may begin within a character.
const SENT: &[&str] = &["\u{a0}admin", "admin\u{2003}", "user,\u{3000}admin"];
const HEADERS: &[&str] = &["x-role", "X-Role", "x_role", "x.role", "x-forwarded-for", "y"];
const PATHS: &[&str] = &["/", "/admin", "/admin/x", "/ADMIN", "/a?admin", "/admin?x=/"];
const HOSTS: &[&str] = &["a.example", "A.example", "a.example:80", "a.example.", "b.example.:8080", ""];
const NAMES: &[&str] = &["spiffe://m/ns/shop/sa/web", "spiffe://m/ns/shop/sa/pay", "web.shop", "CN=web", ""];

fn request(rng: &mut Rng) -> Plain {
    let headers = (0..rng.below(4)).map(|_| match one_of(rng, HEADERS) {
        "x-forwarded-for" => ("x-forwarded-for", address(rng).into()),
        name if rng.below(8) == 0 => (name, one_of(rng, SENT).into()),
        name => (name, one_of(rng, VALUES).into()),
    });
    let headers = headers.collect();
    let ends_here = one_of(rng, &["", "", "x-role", "X_Role", "y"]);
    Plain {
        method: one_of(rng, &["GET", "POST"]),
        target: one_of(rng, PATHS).into(),
        host: one_of(rng, HOSTS).into(),
        headers,
        ends_here,
    }
}

fn test_request(plain: &Plain) -> TestRequest {
    let method = if plain.method == "GET" { wire::head::Method::Get } else { wire::head::Method::Post };
    let start = TestRequest::get(&plain.target).method(method, plain.method).host(&plain.host);
    let request = plain.headers.iter().fold(start, |request, (name, value)| request.header(name, value));
    if plain.ends_here.is_empty() { request } else { request.connection(plain.ends_here) }
}

fn peer(rng: &mut Rng) -> Option<Peer> {
    if rng.below(4) == 0 {
        return None;
    }
    let mut peer = web();
    peer.uri_sans = (0..rng.below(3)).map(|_| Box::from(one_of(rng, NAMES))).collect();
    peer.dns_sans = (0..rng.below(2)).map(|_| Box::from(one_of(rng, &NAMES[1..3]))).collect();
    peer.subject = one_of(rng, &NAMES[3..]).into();
    Some(peer)
}

fn rules(rng: &mut Rng) -> Rules {
    let action = [Action::Allow, Action::Deny, Action::Log][rng.below(3) as usize];
    let mut policies = Vec::new();
    for name in ["one", "two", "three"].iter().take(rng.below(4) as usize) {
        let mut list = || some((0..1 + rng.below(2)).map(|_| condition(rng, 3)).collect());
        policies.push(Policy { name: (*name).into(), permissions: list(), principals: list() });
    }
    Rules::new(action, policies).unwrap()
}

fn condition(rng: &mut Rng, depth: u64) -> Condition {
    let block = |rng: &mut Rng| cidr(one_of(rng, &["10.0.0.0/16", "10.0.0.1/32", "10.0.0.0/8", "::/0"]));
    let list = |rng: &mut Rng| some((0..1 + rng.below(3)).map(|_| condition(rng, depth - 1)).collect());
    match rng.below(if depth > 0 { 16 } else { 11 }) {
        0 => Condition::Always,
        1 | 2 => Condition::Header(header(rng)),
        3 => Condition::Path(text(rng, PATHS)),
        4 => Condition::DestinationIp(block(rng)),
        5 => Condition::DestinationPort(Ports::range(79 + rng.below(3) as u32..82).unwrap()),
        6 => Condition::RequestedServerName(text(rng, &["a.example", "A.example", "b.example", ""])),
        7 => Condition::Authenticated((rng.below(4) > 0).then(|| text(rng, NAMES))),
        8 => Condition::SourceIp(block(rng)),
        9 => Condition::DirectRemoteIp(block(rng)),
        10 => Condition::RemoteIp(block(rng)),
        11 | 12 => Condition::All(list(rng)),
        13 => Condition::Any(list(rng)),
        _ => not(condition(rng, depth - 1)),
    }
}

fn header(rng: &mut Rng) -> HeaderMatch {
    let (name, values) = match rng.below(6) {
        0 => (":method", &["GET", "get", "POST"][..]),
        1 => (":path", PATHS),
        2 => (one_of(rng, &[":authority", "host"]), HOSTS),
        _ => (one_of(rng, HEADERS), VALUES),
    };
    let test = match rng.below(6) {
        0 => HeaderTest::Present(rng.below(2) == 0),
        1 => HeaderTest::Range(3..6),
        _ => HeaderTest::Value(text(rng, values)),
    };
    let (invert, missing_as_empty) = (rng.below(3) == 0, rng.below(3) == 0);
    HeaderMatch { name: name.into(), test, invert, missing_as_empty }
}

fn text(rng: &mut Rng, texts: &[&str]) -> StringMatch {
    let text = one_of(rng, texts);
    let bytes = text.as_bytes();
    let part = bytes.get(rng.below(1 + bytes.len() as u64) as usize..).unwrap();
    let pattern = match rng.below(6) {
        0 => StringPattern::Prefix(bytes.get(..part.len()).unwrap().into()),
        1 => StringPattern::Suffix(part.into()),
        2 => StringPattern::Contains(part.into()),
        3 if !text.contains(['?', '.']) => return matching(&format!(".*{text}")),
        _ => return StringMatch { ignore_case: rng.below(2) == 0, ..exactly(text) },
    };
    StringMatch { pattern, ignore_case: rng.below(2) == 0 }
}
