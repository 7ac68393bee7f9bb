//! Secrets: resources that nothing but the listener waits for that needs them.

use super::*;
use ResourceType::Secret;

/// A listener with a certificate, and secrets.
fn view_with_secrets(secrets: &str, before: Option<&View>) -> Arc<View> {
    let compiled = compile::View {
        listeners: resources("in=1"),
        secrets: resources(secrets),
        ..compile::View::default()
    };
    Arc::new(View::new("r1".into(), compiled, before))
}

#[test]
fn a_secret_comes_as_soon_as_it_is_asked_for_and_goes_after_who_needed_it() {
    let mut stream = Stream::new(["", "", "in=1", ""], false);
    let adopt = |stream: &mut Stream, secrets: &str| {
        stream.view = view_with_secrets(secrets, Some(&stream.view));
        stream.session.adopt(stream.view.clone());
        stream.drain()
    };
    adopt(&mut stream, "one=1 other=1");
    assert_eq!(stream.send(Listener, ""), ["lds#1 in=1"]);
    assert_eq!(stream.send(Secret, "+one +none"), ["sds#2 one=1 -none"], "before the listener is taken");
    assert_eq!(stream.send(Listener, "ack:1"), [""; 0]);
    assert_eq!(stream.send(Secret, "ack:2"), [""; 0], "nobody asked for the other one");
    stream.pass(CHILD_WAIT_MAX);
    assert!(stream.session.is_settled(), "{:?}", stream.session);
    assert_eq!(adopt(&mut stream, "one=2 other=2"), ["sds#3 one=2"]);
    assert_eq!(adopt(&mut stream, ""), [""; 0], "one response at a time");
    assert_eq!(stream.send(Secret, "ack:3"), ["sds#4 -one"]);
    assert_eq!(stream.send(Secret, "ack:4"), [""; 0]);
    assert!(stream.session.is_settled());
}
