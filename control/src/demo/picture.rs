//! The demo's state at one moment, as a line, as the summary and as tables in a terminal. Pure.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::board::{Edge, Now};
use super::toy::Service;

/// Lines of the tables in a terminal.
pub(super) const HEIGHT: u16 = 19;

/// Everything that is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    /// Since the mesh was up.
    pub(super) up: Duration,
    /// Every edge.
    pub(super) edges: Vec<(Edge, Now)>,
    /// Every service.
    pub(super) services: Vec<ServiceNow>,
    /// What lies between the applications, over all edges: median and 99th percentile.
    pub(super) added: [Duration; 2],
    /// Proxies in sync, and all of them; `None` without a control plane.
    pub(super) proxies: Option<(usize, usize)>,
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServiceNow {
    pub(super) service: Service,
    /// Requests per second of each replica; `None` for one that does not run.
    pub(super) replicas: Vec<Option<f64>>,
}

impl Picture {
    /// What the user sees: requests through the gateway.
    fn front(&self) -> Now {
        let front = self.edges.iter().find(|(edge, _)| *edge == Edge::GatewayWeb);
        front.map(|(_, now)| *now).unwrap_or_default()
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let front = self.front();
        let control = match self.proxies {
            Some((synced, all)) => format!("{synced}/{all} in sync"),
            None => "no control plane".to_owned(),
        };
        format!(
            "{:.0} rps  {} ok  p50 {}  p99 {}  proxy-added {}  {control}",
            front.rate,
            success(front.success),
            millis(front.took[0]),
            millis(front.took[1]),
            millis(self.added[0]),
        )
    }

    /// Whether requests succeed on every edge.
    pub(super) fn moves_everywhere(&self) -> bool {
        self.moving_count() == self.edges.len()
    }

    fn moving_count(&self) -> usize {
        self.edges.iter().filter(|(_, now)| now.success.is_some_and(|share| share > 0.0)).count()
    }

    /// The second line of the summary: `6/6 edges   200 rps   p99 1.9 ms (proxy-added 0.21 ms)`.
    pub(super) fn summary(&self) -> String {
        let moving = self.moving_count();
        let front = self.front();
        let (all, rate) = (self.edges.len(), front.rate);
        let (p99, added) = (millis(front.took[1]), millis(self.added[0]));
        format!("plaintext {moving}/{all} edges   {rate:.0} rps   p99 {p99} (proxy-added {added})")
    }

    /// Draws the tables.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let rows = |count: usize| Constraint::Length(u16::try_from(count + 1).unwrap_or(u16::MAX));
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            rows(self.edges.len()),
            Constraint::Length(1),
            rows(self.services.len()),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .split(frame.area());
        let [head, _, edges, _, services, _, foot] = areas[..] else { return };
        let healthy = self.edges.iter().all(|(_, now)| now.success.is_none_or(|share| share == 1.0));
        let colour = if healthy && self.proxies.is_some() { Color::Green } else { Color::Yellow };
        frame.render_widget(Paragraph::new(self.line()).style(Style::new().fg(colour)), head);
        self.draw_edges(frame, edges);
        self.draw_services(frame, services);
        let up = self.up.as_secs();
        let keys = format!("{up} s   q ends it   b breaks a replica   k kills the control plane");
        frame.render_widget(Paragraph::new(keys).style(Style::new().fg(Color::DarkGray)), foot);
    }

    fn draw_edges(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.edges.iter().map(|(edge, now)| {
            let colour = match now.success {
                Some(1.0) => Color::Green,
                Some(_) => Color::Red,
                None => Color::DarkGray,
            };
            Row::new([
                Cell::from(edge.name()),
                Cell::from(edge.protocol()),
                number(format!("{:.0}", now.rate)),
                number(success(now.success)).style(Style::new().fg(colour)),
                number(millis(now.took[0])),
                number(millis(now.took[1])),
                number(millis(now.added[0])),
                number(millis(now.added[1])),
            ])
        });
        let widths = [15, 9, 6, 8, 8, 8, 9, 9].map(Constraint::Length);
        let titles = ["REQ/S", "SUCCESS", "P50", "P99", "ADDED P50", "ADDED P99"]
            .map(|title| number(title.to_owned()));
        let head = [Cell::from("EDGE"), Cell::from("PROTOCOL")].into_iter().chain(titles);
        frame.render_widget(Table::new(rows, widths).header(Row::new(head).style(bold())), area);
    }

    fn draw_services(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.services.iter().map(|now| {
            let up = now.replicas.iter().flatten().count();
            let colour = if up == now.replicas.len() { Color::Green } else { Color::Red };
            let rates =
                now.replicas.iter().map(|rate| rate.map_or("down".to_owned(), |rate| format!("{rate:.0}")));
            Row::new([
                Cell::from(now.service.name()),
                Cell::from(format!("{up}/{} up", now.replicas.len())).style(Style::new().fg(colour)),
                number(format!("{:.0}", now.replicas.iter().flatten().sum::<f64>())),
                Cell::from(format!("  {}", rates.collect::<Vec<_>>().join(" + "))),
            ])
        });
        let widths = [15, 9, 6, 30].map(Constraint::Length);
        let head = [
            Cell::from("SERVICE"),
            Cell::from("REPLICAS"),
            number("REQ/S".to_owned()),
            Cell::from("  OF WHICH EACH"),
        ];
        frame.render_widget(Table::new(rows, widths).header(Row::new(head).style(bold())), area);
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn number(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

/// `100 %`, and never that when something failed.
fn success(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(1.0) => "100 %".to_owned(),
        Some(share) => format!("{:.2} %", (share * 100.0).min(99.99)),
    }
}

/// `0.07 ms`, `1.9 ms`, `12 ms`.
pub(super) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ..1.0 => format!("{millis:.2} ms"),
        1.0..10.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::board::EDGES;
    use super::super::toy::SERVICES;
    use super::*;

    fn picture() -> Picture {
        let us = Duration::from_micros;
        let now =
            Now { rate: 200.0, success: Some(1.0), took: [us(950), us(1900)], added: [us(70), us(420)] };
        let mut edges: Vec<_> = EDGES.iter().map(|edge| (*edge, now)).collect();
        edges[5].1 = Now { success: Some(0.99999), ..now };
        let service = |service| ServiceNow { service, replicas: vec![Some(100.4), Some(99.6)] };
        let mut services: Vec<_> = SERVICES.iter().map(|it| service(*it)).collect();
        services[3].replicas[1] = None;
        let up = Duration::from_secs(12);
        Picture { up, edges, services, added: [us(70), us(420)], proxies: Some((13, 13)) }
    }

    #[test]
    fn a_picture_is_one_line_or_a_summary() {
        let mut picture = picture();
        assert_eq!(
            picture.line(),
            "200 rps  100 % ok  p50 0.95 ms  p99 1.9 ms  proxy-added 0.07 ms  13/13 in sync"
        );
        assert_eq!(picture.summary(), "plaintext 6/6 edges   200 rps   p99 1.9 ms (proxy-added 0.07 ms)");
        picture.edges[5].1 = Now::default();
        picture.proxies = None;
        assert!(picture.summary().starts_with("plaintext 5/6 edges"), "{}", picture.summary());
        assert!(picture.line().ends_with("no control plane"), "{}", picture.line());
    }

    #[test]
    fn a_picture_fits_a_terminal_of_eighty_columns_and_shows_what_is_wrong() {
        let mut terminal = Terminal::new(TestBackend::new(80, HEIGHT)).unwrap();
        terminal.draw(|frame| picture().draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        for line in [
            "EDGE            PROTOCOL   REQ/S  SUCCESS      P50      P99 ADDED P50 ADDED P99",
            "gateway -> chat WebSocket    200    100 %  0.95 ms   1.9 ms   0.07 ms   0.42 ms",
            "pay -> ledger   TCP          200  99.99 %  0.95 ms   1.9 ms   0.07 ms   0.42 ms",
            "orders          1/2 up       100   100 + down",
            "12 s   q ends it",
        ] {
            assert!(screen.contains(line), "{line:?} is not on\n{screen}");
        }
    }
}
