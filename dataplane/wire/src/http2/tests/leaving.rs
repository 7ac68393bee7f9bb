//! GOAWAY both ways, and the ends of ids.

use std::{vec, vec::Vec};

use super::*;

/// What the client tells of streams that were refused, by id.
fn refused(end: &mut End) -> Vec<u32> {
    core::iter::from_fn(|| {
        let key = end.wire.next_refused()?;
        end.wire.streams.get(key).map(|stream| stream.id)
    })
    .collect()
}

#[test]
fn streams_that_a_leaving_server_has_not_looked_at_are_given_once() {
    let mut client = End::client(config());
    client.receive(&goaway((1 << 31) - 1, 0));
    assert_eq!(refused(&mut client), vec![]);
    assert!(client.wire.is_leaving() && client.wire.open().is_none());
    client.receive(&goaway(3, 0));
    assert_eq!(refused(&mut client), [5, 7]);
    assert_eq!(refused(&mut client), vec![]);
    // It says less the second time; more it cannot say.
    client.receive(&[goaway(1, 2), goaway(7, 0)].concat());
    assert_eq!(refused(&mut client), [3]);
    client.take_told();
    client.receive(&headers(1, END, &[(":status", "204")]));
    assert_eq!(client.take_told(), ["response 1: HTTP/1.1 204 "]);
    client.release_all();
    assert_eq!(client.sent(), [] as [&str; 0], "what was not looked at needs no reset");
}

#[test]
fn what_a_leaving_client_says_of_the_streams_of_its_server_means_nothing() {
    let mut server = End::server(config());
    server.receive(&[get(1), goaway(0, 0), get(3)].concat());
    assert_eq!(server.take_told().len(), 3);
    assert_eq!(refused(&mut server), vec![]);
    for id in [1, 3] {
        server.answer(id, "HTTP/1.1 204 \r\n\r\n", true);
    }
    assert_eq!(server.sent(), ["HEADERS 1 end", "HEADERS 3 end"]);
}
