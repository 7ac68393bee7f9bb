//! Paths of which a connection manager makes one spelling.

use sim::{Ask, Behaviour};
use wire::path::{EscapedSlashes, Normalization};

use crate::mesh::{Setup, forward_to, ok, refused, route};

const HOW: Normalization =
    Normalization { dot_segments: true, merge_slashes: true, escaped_slashes: EscapedSlashes::Keep };

fn normalizing(escaped_slashes: EscapedSlashes) -> Setup {
    Setup::new(Behaviour::default())
        .routes(|| vec![route("/open", forward_to("app"))])
        .manager(move |manager| manager.path_normalization = Normalization { escaped_slashes, ..HOW })
}

#[test]
fn one_spelling_is_routed_and_forwarded_and_what_follows_it_arrives() {
    normalizing(EscapedSlashes::UnescapeAndForward).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let targets = ["/open", "/x/..//open/./a%2Fb?c=../d", "/shut/%2e%2e/open//", "/open/%7Ea"];
        for (id, target) in targets.iter().enumerate() {
            ok(client.ask(&Ask::post("shop", target, id, "a body").header("x-kept", "yes")).await);
        }
        let seen: Vec<_> =
            mesh.origin().requests().iter().map(|request| request.target().to_owned()).collect();
        assert_eq!(seen, ["/open", "/open/a/b?c=../d", "/open/", "/open/~a"]);
        assert!(mesh.origin().requests().iter().all(|request| request.header("x-kept") == Some("yes")));
        let answer = refused(client.ask(&Ask::get("shop", "/open/../shut", 9)).await);
        assert_eq!(answer, (404, "no-route".to_owned()));
    });
}

#[test]
fn a_path_with_two_meanings_is_refused() {
    normalizing(EscapedSlashes::Reject).on_sim(async |mesh| {
        for (target, reason) in [("/open%2Fa", "escaped-slash"), ("/open/%00", "escaped-nul")] {
            let mut client = mesh.client().await;
            let answer = refused(client.ask(&Ask::get("shop", target, 0)).await);
            assert_eq!(answer, (400, reason.to_owned()));
        }
    });
}

#[test]
fn a_downstream_is_sent_to_the_path_that_comes_out() {
    normalizing(EscapedSlashes::UnescapeAndRedirect).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/open//x%2F..%2Fy?z=%2F", 0).bytes()).await;
        let head = peer.recv_until(b"\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(
            head.starts_with("http/1.1 307 ") && head.contains("\r\nlocation: /open/y?z=%2f\r\n"),
            "{head}"
        );
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/%2F%5Cevil.example", 1).bytes()).await;
        let head = String::from_utf8_lossy(&peer.recv_until(b"\r\n\r\n").await).to_lowercase();
        assert!(head.contains("\r\nlocation: /evil.example\r\n"), "sent to another host: {head}");
    });
}
