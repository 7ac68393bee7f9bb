//! The demo's load: requests and messages through the gateway at a steady rate, whatever becomes of the ones before (an
//! open loop).

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper::Uri;
use tokio::sync::Semaphore;

use super::board::{Board, Edge};
use super::chat::Chatter;
use super::client::Client;

/// Requests that wait for an answer at one time; one more counts as failed. Five seconds of the usual rate.
const IN_FLIGHT_MAX: usize = 1000;

/// A timer may be late by as much; what is later is the mesh's (or the machine's) and counts.
const TIMER_SLACK: Duration = Duration::from_millis(3);

/// Every so many requests one is a checkout; the others look into the cart.
const CHECKOUT_EVERY: u64 = 4;

/// For every so many requests there is a message in the chat.
const MESSAGE_EVERY: u32 = 4;

/// WebSockets over which the messages go in turn.
const CHATTERS: u32 = 4;

/// Those who chat.
pub(super) fn chatters(gateway: SocketAddr) -> Vec<Chatter> {
    (0..CHATTERS).map(|_| Chatter::new(gateway)).collect()
}

/// Sends requests, `rate` a second, and messages beside them until it is dropped.
pub(super) async fn run(gateway: Arc<Client>, chatters: Vec<Chatter>, board: Arc<Board>, rate: u32) {
    tokio::join!(ask(gateway, &board, rate), chat(chatters, &board, rate));
}

async fn ask(gateway: Arc<Client>, board: &Arc<Board>, rate: u32) {
    let started = Instant::now();
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    for number in 0u64.. {
        let due = started
            + Duration::from_secs(number / u64::from(rate))
            + Duration::from_secs(number % u64::from(rate)) / rate;
        tokio::time::sleep_until(due.into()).await;
        let Ok(permit) = in_flight.clone().try_acquire_owned() else {
            board.failed(Edge::GatewayWeb);
            continue;
        };
        let (gateway, board) = (gateway.clone(), board.clone());
        tokio::spawn(async move {
            let late = late(due);
            let answer = gateway.get(&target(number)).await;
            match answer {
                Ok(answer) if answer.status.is_success() => {
                    board.succeeded(Edge::GatewayWeb, answer.took + late, answer.worked);
                }
                Ok(_) | Err(_) => board.failed(Edge::GatewayWeb),
            }
            drop(permit);
        });
    }
}

async fn chat(chatters: Vec<Chatter>, board: &Board, rate: u32) {
    let pause = Duration::from_secs(1) * MESSAGE_EVERY / rate;
    let started = Instant::now();
    let talks = chatters.into_iter().zip(0..).map(|(mut chatter, number)| async move {
        let mut due = started + pause * number;
        loop {
            tokio::time::sleep_until(due.into()).await;
            // What is due while an earlier message is on its way waits for it, and the wait counts.
            let (late, sent) = (late(due), Instant::now());
            match chatter.say("is there any coffee?").await {
                // All of it lies between the two ends: what comes back at once is no work.
                Ok(()) => board.succeeded(Edge::GatewayChat, sent.elapsed() + late, Some(Duration::ZERO)),
                Err(_) => board.failed(Edge::GatewayChat),
            }
            due += pause * CHATTERS;
        }
    });
    join_all(talks).await;
}

/// How late something begins that is due then.
fn late(due: Instant) -> Duration {
    let late = due.elapsed();
    if late > TIMER_SLACK { late } else { Duration::ZERO }
}

fn target(number: u64) -> Uri {
    if number.is_multiple_of(CHECKOUT_EVERY) { CHECKOUT.clone() } else { CART.clone() }
}

/// What touches every service but cart, and what touches cart.
pub(super) static CHECKOUT: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("http://shop.demo/checkout"));
pub(super) static CART: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("http://shop.demo/"));
