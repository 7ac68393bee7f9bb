//! Who may ask for what: a request that is denied reaches no origin.

use std::sync::Arc;

use dataplane::telemetry::access_log::AccessLog;

use policy::{
    http_filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter},
    rbac::{Action, Condition, Conditions, Policy, Rbac, Rules},
    route::{HeaderMatch, HeaderTest, RouteSpec},
    string_match::{StringMatch, StringPattern},
};
use sim::{Ask, Behaviour, Sim};
use wire::path::{EscapedSlashes, Normalization};

use crate::{
    access_log::lines_of,
    mesh::{APP, Ground, Mesh, Pairing, Setup, forward_to, ok, refused, route},
    secured::{Authority, Identity, TlsPeer, downstream},
};

pub(crate) const WEB: &str = "spiffe://m/ns/shop/sa/web";
const PAY: &str = "spiffe://m/ns/shop/sa/pay";

/// What a client that is denied is told.
fn denied() -> (u16, String) {
    (403, "rbac-access-denied".to_owned())
}

fn exactly(text: &str) -> StringMatch {
    StringMatch { pattern: StringPattern::Exact(text.as_bytes().into()), ignore_case: false }
}

fn prefix(text: &str) -> Condition {
    let pattern = StringPattern::Prefix(text.as_bytes().into());
    Condition::Path(StringMatch { pattern, ignore_case: false })
}

fn header(name: &str, value: &str) -> Condition {
    let test = HeaderTest::Value(exactly(value));
    Condition::Header(HeaderMatch { name: name.into(), test, invert: false, missing_as_empty: false })
}

fn some(condition: Condition) -> Conditions {
    Conditions::new(vec![condition]).unwrap()
}

/// One policy: what is done, by whom.
pub(crate) fn rules(action: Action, permission: Condition, principal: Condition) -> Rules {
    let policy =
        Policy { name: "shop/p[0]".into(), permissions: some(permission), principals: some(principal) };
    Rules::new(action, vec![policy]).unwrap()
}

pub(crate) fn enforced(rules: Rules) -> Rbac {
    Rbac { rules: Some(rules), shadow_rules: None }
}

fn filter(name: &str, rbac: Rbac) -> HttpFilter {
    HttpFilter { name: name.into(), is_disabled: false, config: FilterConfig::Rbac(Arc::new(rbac)) }
}

/// Requests for some paths are denied.
pub(crate) fn denying(path: &str) -> HttpFilter {
    filter("rbac", enforced(rules(Action::Deny, prefix(path), Condition::Always)))
}

pub(crate) fn guarded(filters: impl IntoIterator<Item = HttpFilter>) -> Setup {
    Setup::new(Behaviour::default()).manager(|manager| manager.http_filters = filters.into_iter().collect())
}

fn paths_seen<I: Ground>(mesh: &Mesh<I>) -> Vec<String> {
    mesh.origin().requests().iter().map(|request| request.target().to_owned()).collect()
}

pub(crate) async fn denial<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    ok(client.ask(&Ask::get("shop", "/open", 1)).await);
    for id in 2..4 {
        assert_eq!(refused(client.ask(&Ask::get("shop", "/admin/x", id)).await), denied());
    }
    ok(client.ask(&Ask::get("shop", "/open", 4)).await);
    // Nobody waits for a body that nobody wants.
    assert_eq!(refused(client.ask(&Ask::post("shop", "/admin/x", 5, "a body")).await), denied());
    assert_eq!(paths_seen(mesh), ["/open", "/open"]);
    assert_eq!((mesh.rbac("allowed"), mesh.rbac("denied")), (2, 3));
}

#[test]
fn a_denied_request_reaches_no_origin_and_its_connection_goes_on() {
    guarded([denying("/admin")]).on_sim(denial);
}

#[test]
fn who_is_denied_reads_why_and_not_by_whom() {
    guarded([denying("/")]).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send("GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").await;
        let answer = String::from_utf8(peer.recv_to_end().await.bytes).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nRBAC: access denied"), "{answer}");
        assert!(!answer.contains("shop/p"), "{answer}");
    });
}

#[test]
fn a_request_without_a_route_is_denied_before_anybody_learns_that() {
    let setup = guarded([denying("/admin")]).routes(|| vec![route("/open", forward_to(APP))]);
    setup.on_sim(async |mesh| {
        let mut client = mesh.client().await;
        assert_eq!(refused(client.ask(&Ask::get("shop", "/admin", 1)).await), denied());
        let answer = refused(client.ask(&Ask::get("shop", "/other", 2)).await);
        assert_eq!(answer, (404, "no-route".to_owned()));
    });
}

#[test]
fn filters_are_asked_in_order_and_all_must_allow() {
    let allow = filter("allow", enforced(rules(Action::Allow, prefix("/a"), Condition::Always)));
    guarded([denying("/a/admin"), allow]).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::get("shop", "/a", 1)).await);
        assert_eq!(refused(client.ask(&Ask::get("shop", "/a/admin", 2)).await), denied());
        assert_eq!(refused(client.ask(&Ask::get("shop", "/b", 3)).await), denied());
        // Who was denied by the first was not asked by the second.
        assert_eq!((mesh.rbac("allowed"), mesh.rbac("denied")), (3, 2));
    });
}

#[test]
fn shadow_rules_are_counted_and_deny_nobody() {
    let deny = rules(Action::Deny, prefix("/admin"), Condition::Always);
    let shadow = Rbac { rules: None, shadow_rules: Some(deny) };
    guarded([filter("shadow", shadow)]).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::get("shop", "/admin", 1)).await);
        ok(client.ask(&Ask::get("shop", "/open", 2)).await);
        assert_eq!((mesh.rbac("shadow_denied"), mesh.rbac("shadow_allowed")), (1, 1));
        assert_eq!((mesh.rbac("denied"), mesh.rbac("allowed")), (0, 0));
    });
}

#[test]
fn what_a_route_says_of_a_filter_goes_before_what_the_connection_manager_says() {
    let saying = |over: FilterOverride| FilterOverrides::new([("rbac".into(), over)].into());
    let routes = move || {
        let nothing = FilterConfig::Rbac(Arc::default());
        let admin = rules(Action::Allow, header("x-role", "admin"), Condition::Always);
        let admin = FilterConfig::Rbac(Arc::new(enforced(admin)));
        let with = |path: &str, over| RouteSpec { filters: saying(over), ..route(path, forward_to(APP)) };
        vec![
            with("/off", FilterOverride::Disabled),
            with("/nothing", FilterOverride::Config(nothing)),
            with("/admin", FilterOverride::Config(admin)),
            route("/", forward_to(APP)),
        ]
    };
    guarded([denying("/")]).routes(routes).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::get("shop", "/off", 1)).await);
        ok(client.ask(&Ask::get("shop", "/nothing", 2)).await);
        ok(client.ask(&Ask::get("shop", "/admin", 3).header("x-role", "admin")).await);
        assert_eq!(refused(client.ask(&Ask::get("shop", "/admin", 4)).await), denied());
        assert_eq!(refused(client.ask(&Ask::get("shop", "/", 5)).await), denied());
    });
}

/// RB-01: what is decided by, what is routed by and what is forwarded is one path.
#[test]
fn rb_01_one_path_is_decided_routed_and_forwarded() {
    let how = Normalization {
        dot_segments: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndForward,
    };
    // Every target; what arrives, or that nothing does.
    let table: [(&str, Option<&str>); 18] = [
        ("/admin", None),
        ("/a/../admin", None),
        ("/a/%2e%2e/admin", None),
        ("/a/.%2E/admin", None),
        ("//admin", None),
        ("/./admin", None),
        ("/admin/", None),
        ("/admin?", None),
        ("/admin?x=/open", None),
        ("/%61dmin", None),
        ("/a%2f..%2fadmin", None),
        ("/a\\..\\admin", None),
        ("http://shop/a/../admin", None),
        ("/admin;x=y", None),
        ("/ADMIN", Some("/ADMIN")),
        ("/admi%252fn", Some("/admi%252fn")),
        ("/%c0%ae%c0%ae/adm", Some("/%c0%ae%c0%ae/adm")),
        ("/*/adm", Some("/*/adm")),
    ];
    let admin = || RouteSpec { name: "admin".into(), ..route("/admin", forward_to("nobody")) };
    let setup = guarded([denying("/admin")])
        .manager(|manager| manager.path_normalization = how)
        .routes(move || vec![admin(), route("/", forward_to(APP))]);
    setup.on_sim(async |mesh| {
        let mut expected = Vec::new();
        for (id, (target, arrives)) in table.iter().enumerate() {
            let mut client = mesh.client().await;
            let verdict = client.ask(&Ask::get("shop", target, id)).await;
            match arrives {
                None => assert_eq!(refused(verdict), denied(), "{target}"),
                Some(path) => {
                    ok(verdict);
                    expected.push(*path);
                }
            }
        }
        assert_eq!(paths_seen(mesh), expected);
        let mut client = mesh.client().await;
        let fragment = refused(client.ask(&Ask::get("shop", "/open#/admin", 99)).await);
        assert_eq!(fragment, (400, "target-fragment".to_owned()));
    });
}

/// RB-02: a host that is denied is denied in each of its forms, and what is no host is refused.
#[test]
fn rb_02_a_host_is_denied_in_every_form() {
    let deny = rules(Action::Deny, header(":authority", "admin.shop"), Condition::Always);
    guarded([filter("rbac", enforced(deny))]).on_sim(async |mesh| {
        for (id, host) in
            ["admin.shop", "ADMIN.shop", "admin.shop:80", "Admin.Shop:8080", "admin.shop.", "admin.shop.:80"]
                .iter()
                .enumerate()
        {
            let mut client = mesh.client().await;
            assert_eq!(refused(client.ask(&Ask::get(host, "/", id)).await), denied(), "{host}");
            // The target's host is the one that counts, whatever the header says.
            let target = format!("http://{host}/");
            let verdict = client.ask(&Ask::get(host, &target, 10 + id)).await;
            assert_eq!(refused(verdict), denied(), "{target}");
        }
        for (id, host) in ["user@admin.shop", "shop@admin.shop:80"].iter().enumerate() {
            let mut client = mesh.client().await;
            let (status, _) = refused(client.ask(&Ask::get(host, "/", 20 + id)).await);
            assert_eq!(status, 400, "{host}");
        }
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::get("open.shop", "/", 30)).await);
        assert_eq!(mesh.origin().requests().len(), 1);
    });
}

/// RB-03: a role that is denied is denied however it is told, and one that is allowed must be the only one.
#[test]
fn rb_03_every_value_of_a_header_is_checked() {
    // Lines; whether a policy that denies `admin` lets them pass, and one that allows `user`.
    type Row<'a> = (&'a [(&'a str, &'a str)], bool, bool);
    let table: [Row<'_>; 8] = [
        (&[("x-role", "user")], true, true),
        (&[("x-role", "user"), ("x-role", "admin")], false, false),
        (&[("x-role", "admin"), ("x-role", "user")], false, false),
        (&[("x-role", "user,admin")], false, false),
        (&[("x-role", "user, admin")], false, false),
        (&[("X-Role", "user"), ("X-ROLE", "admin")], false, false),
        (&[("x-role", "user"), ("x_role", "admin")], false, false),
        (&[("x_role", "admin")], false, false),
    ];
    let deny = rules(Action::Deny, header("x-role", "admin"), Condition::Always);
    let allow = rules(Action::Allow, header("x-role", "user"), Condition::Always);
    for (rules, is_deny) in [(deny, true), (allow, false)] {
        guarded([filter("rbac", enforced(rules))]).on_sim(async |mesh| {
            let mut passed = 0;
            for (id, (lines, by_deny, by_allow)) in table.iter().enumerate() {
                let ask = lines
                    .iter()
                    .fold(Ask::get("shop", "/", id), |ask, (name, value)| ask.header(name, value));
                let mut client = mesh.client().await;
                let verdict = client.ask(&ask).await;
                if if is_deny { *by_deny } else { *by_allow } {
                    ok(verdict);
                    passed += 1;
                } else {
                    assert_eq!(refused(verdict), denied(), "{lines:?}");
                }
            }
            assert_eq!(mesh.origin().requests().len(), passed);
        });
    }
}

/// RB-03: aiohttp takes trailers that come with a request for headers of it, which no rule was asked about.
#[test]
fn rb_03_what_comes_behind_the_body_says_nothing_more_to_upstream() {
    let deny = || filter("rbac", enforced(rules(Action::Deny, header("x-role", "admin"), Condition::Always)));
    for (pairing, is_guarded) in
        Pairing::all().into_iter().flat_map(|pairing| [(pairing, true), (pairing, false)])
    {
        let setup = pairing.setup(Default::default());
        let filters = if is_guarded { vec![deny()] } else { Vec::new() };
        setup.manager(|manager| manager.http_filters = filters).on_sim(async |mesh| {
            let ask = Ask::post("shop", "/", 1, "pay").chunked(2);
            if pairing.down {
                let streams = mesh.streams().await;
                let stream = streams.begin(&ask).await.unwrap();
                assert!(stream.send(b"pay", false).await);
                stream.send_end(&[("x-role", "admin")]);
                ok(stream.verdict(&ask).await);
            } else {
                let mut peer = mesh.peer().await;
                let bytes = ask.bytes();
                let body = bytes.strip_suffix(b"\r\n").unwrap();
                peer.send([body, b"x-role: admin\r\n\r\n"].concat()).await;
                let head = peer.recv_until(b"\r\n\r\n").await;
                assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
            }
            let requests =
                if pairing.up { mesh.stream_origin().requests() } else { mesh.origin().requests() };
            let [request] = &requests[..] else { panic!("{pairing:?}: {} requests", requests.len()) };
            assert_eq!(request.body, b"pay", "{pairing:?}");
            assert_eq!(request.trailers.is_empty(), is_guarded, "{pairing:?}: {:?}", request.trailers);
        });
    }
}

/// RB-05: no policy, or none that could match, allows nobody.
#[test]
fn rb_05_without_a_policy_that_allows_nobody_is_allowed() {
    let unmatched = rules(Action::Allow, Condition::Always, Condition::Authenticated(None));
    for rules in [Rules::new(Action::Allow, Vec::new()).unwrap(), unmatched] {
        guarded([filter("rbac", enforced(rules))]).on_sim(async |mesh| {
            let mut client = mesh.client().await;
            assert_eq!(refused(client.ask(&Ask::get("shop", "/", 1)).await), denied());
            assert!(mesh.origin().requests().is_empty());
        });
    }
}

pub(crate) async fn new_rules<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    ok(client.ask(&Ask::get("shop", "/", 1)).await);
    mesh.adopt(|config| config.manager.http_filters = vec![denying("/")]).await;
    assert_eq!(refused(client.ask(&Ask::get("shop", "/", 2)).await), denied());
    mesh.adopt(|config| config.manager.http_filters.clear()).await;
    ok(client.ask(&Ask::get("shop", "/", 3)).await);
    assert_eq!(mesh.http("downstream_cx_total"), 1, "the connection is the same");
}

#[test]
fn new_rules_bind_the_next_request_of_an_old_connection() {
    Setup::new(Behaviour::default()).on_sim(new_rules);
}

pub(crate) fn only(id: &str) -> Rules {
    rules(Action::Allow, Condition::Always, Condition::Authenticated(Some(exactly(id))))
}

pub(crate) struct World {
    authority: Authority,
    pub(crate) web: Identity,
    pub(crate) pay: Identity,
}

impl World {
    pub(crate) fn new() -> World {
        let authority = Authority::new();
        let (web, pay) = (authority.workload(WEB), authority.workload(PAY));
        World { authority, web, pay }
    }

    pub(crate) fn guarding(&self, mut setup: Setup) -> Setup {
        setup.config.tls = Some(Arc::new(downstream(&self.pay, self.authority.bundle())));
        setup
    }

    pub(crate) async fn client<I: Ground>(&self, mesh: &Mesh<I>, own: &Identity) -> TlsPeer<I> {
        TlsPeer::client(mesh.peer().await, Identity::client(Some(own), &self.authority, &["http/1.1"]))
    }
}

#[test]
fn a_request_is_allowed_by_who_sends_it() {
    let world = World::new();
    let setup = world.guarding(guarded([filter("rbac", enforced(only(WEB)))]));
    setup.on_sim(async |mesh| {
        for (own, status) in [(&world.web, "200"), (&world.pay, "403")] {
            let mut client = world.client(mesh, own).await;
            client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            let head = String::from_utf8(client.recv_until(b"\r\n\r\n").await.unwrap()).unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            client.peer.reset();
        }
        assert_eq!(mesh.origin().requests().len(), 1);
    });
}

#[test]
fn a_denial_is_told_in_the_words_of_the_protocol() {
    for pairing in Pairing::all() {
        let setup = pairing.setup(Default::default());
        let setup = setup.manager(|manager| manager.http_filters = vec![denying("/shop.Admin/")]);
        setup.on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            ok(asker.ask(&Ask::get("shop", "/", 1)).await);
            assert_eq!(refused(asker.ask(&Ask::get("shop", "/shop.Admin/Get", 2)).await), denied());
            if pairing.down {
                let call = Ask::post("shop", "/shop.Admin/Drop", 3, "all")
                    .header("content-type", "application/grpc")
                    .header("te", "trailers");
                let streams = mesh.streams().await;
                let stream = streams.begin(&call).await.unwrap();
                stream.send(b"all", true).await;
                let answer = stream.whole().await.unwrap();
                assert_eq!((answer.status(), answer.header("grpc-status")), (200, Some("7")));
                assert_eq!(answer.header("grpc-message"), Some("RBAC: access denied"));
            }
            assert_eq!(mesh.ledger().into_keys().collect::<Vec<_>>(), ["1"], "{pairing:?}");
        });
    }
}

#[test]
fn the_log_names_the_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let note = filter("note", enforced(rules(Action::Log, prefix("/noted"), Condition::Always)));
    let deny = rules(Action::Deny, prefix("/would"), Condition::Always);
    let would = filter("would", Rbac { rules: None, shadow_rules: Some(deny) });
    let allow = filter("allow", enforced(rules(Action::Allow, header("x-a", "1"), Condition::Always)));
    let mut setup = guarded([note, would, denying("/admin"), allow]);
    setup.access_log = AccessLog::start(&path).unwrap();
    setup.on(&Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut client = mesh.client().await;
        let ask = |path: &str, id: usize| Ask::get("shop", path, id).header("x-a", "1");
        ok(client.ask(&ask("/not-written", 0)).await);
        refused(client.ask(&ask("/admin", 1)).await);
        refused(client.ask(&Ask::get("shop", "/", 2)).await);
        ok(client.ask(&ask("/noted", 3)).await);
        ok(client.ask(&ask("/would", 4)).await);
    });
    let told: Vec<String> = lines_of(&path, 4)
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let of = |name: &str| line.get(name).map_or("", |text| text.as_str().unwrap()).to_owned();
            let [reason, policy] = ["reason", "policy"].map(of);
            let [noted, would] = ["noted_by", "shadow_denied_by"].map(of);
            format!("{} {} {reason} {policy} {noted} {would}", of("target"), line["status"])
        })
        .collect();
    assert_eq!(
        told,
        [
            "/admin 403 rbac-access-denied shop/p[0]  ",
            "/ 403 rbac-access-denied -  ",
            "/noted 200 - shop/p[0] shop/p[0] ",
            "/would 200 - shop/p[0]  shop/p[0]",
        ]
    );
}
