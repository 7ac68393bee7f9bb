//! The core stories once more, on the kernel with both drivers.

use std::{num::NonZeroU32, time::Duration};

use sim::Behaviour;
use wire::proxy_protocol::{Accepted, Version};

use crate::{
    adoption, authorization, authorization_connections, bodies, connection_limits, departures,
    dynamic_forward, endings, keep_alive, limits, mesh::Setup, proxy_protocol, refusals, tcp, timeouts,
};

const MS: Duration = Duration::from_millis(1);

fn plain() -> Setup {
    Setup::new(Behaviour::default())
}

fn thinking() -> Setup {
    Setup::new(Behaviour { think: 300 * MS, ..Behaviour::default() })
}

/// One test per story, so that they run side by side.
macro_rules! on_kernel {
    ($($name:ident: $setup:expr, $story:expr;)*) => {
        $(#[test]
        fn $name() {
            $setup.on_kernel($story);
        })*
    };
}

on_kernel! {
    requests_share_connections: plain(), keep_alive::requests_share_connections;
    pipelined_requests_are_answered_in_order: plain(), keep_alive::pipelined_requests;
    a_half_close_still_gets_the_response: thinking(), keep_alive::half_close_after_the_request;
    request_bodies_arrive: plain(), async |mesh| bodies::request_bodies(mesh, &[0, 1, 3000, 200_000]).await;
    response_bodies_arrive: plain(), async |mesh| bodies::response_bodies(mesh, &[0, 1, 3000, 200_000]).await;
    an_early_answer_arrives: Setup::new(Behaviour::answers_early(413)), bodies::early_answer;
    an_early_answer_waits_for_a_client_that_reads_last:
        Setup::new(Behaviour::answers_early(413)), bodies::sends_all_before_it_reads;
    a_100_is_passed_on: plain(), bodies::expect_continue;
    a_failed_connect_moves_to_another_endpoint: plain().nobodies(1), endings::moves_to_another_endpoint;
    a_reset_while_it_waits_ends_the_exchange:
        Setup::new(Behaviour::never_answers()), departures::reset_while_it_waits;
    a_half_close_during_a_long_wait_still_gets_the_response: departures::slow(), departures::half_close_and_wait;
    pipelined_requests_behind_a_slow_one_are_answered: departures::slow(), departures::pipelined_behind_a_slow_one;
    nobody_is_there: plain().without_origins().nobodies(3), endings::nobody_is_there;
    the_route_timeout_is_kept: Setup::new(Behaviour::never_answers())
        .forward(|f| f.timeout = Some(500 * MS)), async |mesh| { timeouts::route_timeout(mesh).await; };
    a_dripping_head_is_given_up: plain()
        .manager(|m| m.request_headers_timeout = Some(500 * MS)), timeouts::dripping_head;
    a_dripping_request_is_given_up: plain().manager(|m| m.request_timeout = Some(500 * MS)), limits::drips;
    a_connection_carries_so_many_requests: plain()
        .manager(|m| m.max_requests_per_connection = NonZeroU32::new(3)), limits::third_request_is_the_last;
    who_comes_while_descriptors_are_short_waits:
        connection_limits::little_room(), connection_limits::waits_for_room;
    malformed_heads_are_refused: plain(), refusals::malformed_heads;
    a_change_leaves_what_runs_alone: Setup::new(adoption::named("first"))
        .origin(adoption::named("second")), adoption::change_under_a_connection;
    a_removed_listener_ends_gently: plain(), adoption::removed_listener;
    a_stream_that_is_given_up_in_the_middle_never_looks_whole: tcp::soon_idle(), tcp::idle_behind_a_slow_receiver;
    a_denied_request_reaches_no_origin: authorization::guarded([authorization::denying("/admin")]),
        authorization::denial;
    new_rules_bind_the_next_request: plain(), authorization::new_rules;
    new_rules_end_what_only_carries_bytes: plain().played(1).tcp(None), authorization_connections::new_rules_for_what_lives;
    a_drain_ends_gently: plain(), adoption::drain;
    hosts_are_looked_up: dynamic_forward::mesh(), dynamic_forward::is_looked_up_once;
    a_proxy_before_us_tells_the_client: proxy_protocol::taking(Accepted::ALL), proxy_protocol::tells_the_client;
    an_upstream_that_is_told_the_client: proxy_protocol::telling(Version::V2),
        proxy_protocol::one_client_one_connection;
    a_tcp_upstream_that_is_told_the_client: proxy_protocol::telling(Version::V1).tcp(None),
        proxy_protocol::before_a_server_that_speaks_first;
    tcp_goes_both_ways: plain().played(1).tcp(None), tcp::both_ways;
    tcp_half_closes_are_passed_on: plain().played(1).tcp(None), tcp::half_closes;
    tcp_resets_are_passed_on: plain().played(1).tcp(None), tcp::resets;
}
