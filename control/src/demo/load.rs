//! The demo's load: requests through the gateway at a steady rate, whatever becomes of the ones before (an open loop).

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use hyper::Uri;
use tokio::sync::Semaphore;

use super::board::{Board, Edge};
use super::client::Client;

/// Requests that wait for an answer at one time; one more counts as failed. Five seconds of the usual rate.
const IN_FLIGHT_MAX: usize = 1000;

/// A timer may be late by as much; what is later is the mesh's (or the machine's) and counts.
const TIMER_SLACK: Duration = Duration::from_millis(3);

/// Every so many requests one is a checkout; the others look into the cart.
const CHECKOUT_EVERY: u64 = 4;

/// Sends requests until it is dropped.
pub(super) async fn run(gateway: Arc<Client>, board: Arc<Board>, rate: u32) {
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
            let late = due.elapsed();
            let late = if late > TIMER_SLACK { late } else { Duration::ZERO };
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

fn target(number: u64) -> Uri {
    if number.is_multiple_of(CHECKOUT_EVERY) { CHECKOUT.clone() } else { CART.clone() }
}

/// What touches every service but cart, and what touches cart.
pub(super) static CHECKOUT: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("http://shop.demo/checkout"));
pub(super) static CART: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("http://shop.demo/"));
