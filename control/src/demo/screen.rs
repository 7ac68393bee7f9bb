//! Where the demo shows itself: a terminal that is refreshed in place, or plain lines.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget as _};
use ratatui::{Terminal, TerminalOptions, Viewport};
use tokio::sync::mpsc;

use super::lesson::Lesson;
use super::picture::{HEIGHT, Picture};

/// How long the keyboard is listened to before the thread looks whether anybody still cares.
const KEY_POLL: Duration = Duration::from_millis(100);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To end.
    End,
    /// To be taught.
    Lesson(Lesson),
}

/// Where lines and pictures go.
pub(super) enum Screen {
    /// A terminal; the picture stays at the bottom, lines scroll above it.
    Live(Box<Live>),
    /// Lines, one per picture.
    Plain,
}

/// A terminal whose keyboard is ours; given back on drop.
pub(super) struct Live {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// A live one if it was not declined and standard output is a terminal that can do it. The receiver hears keys.
    pub(super) fn open(plain: bool) -> (Screen, mpsc::Receiver<Wish>) {
        let (sender, wishes) = mpsc::channel(4);
        let interactive = io::stdout().is_terminal() && io::stdin().is_terminal();
        if plain || !interactive {
            return (Screen::Plain, wishes);
        }
        match Live::open() {
            Ok(live) => {
                std::thread::spawn(move || listen(&sender));
                (Screen::Live(Box::new(live)), wishes)
            }
            Err(_) => (Screen::Plain, wishes),
        }
    }

    /// How often a picture is wanted.
    pub(super) fn period(&self) -> Duration {
        match self {
            Screen::Live(_) => Duration::from_millis(250),
            Screen::Plain => Duration::from_secs(1),
        }
    }

    /// A line that stays.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        match self {
            Screen::Live(live) => live.say(line),
            Screen::Plain => writeln!(io::stdout(), "{line}"),
        }
    }

    /// The newest picture.
    pub(super) fn show(&mut self, picture: &Picture) -> io::Result<()> {
        match self {
            Screen::Live(live) => live.terminal.draw(|frame| picture.draw(frame)).map(drop),
            Screen::Plain => writeln!(io::stdout(), "{:>5} s  {}", picture.up.as_secs(), picture.line()),
        }
    }
}

impl Live {
    fn open() -> io::Result<Live> {
        enable_raw_mode()?;
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        match Terminal::with_options(CrosstermBackend::new(io::stdout()), options) {
            Ok(terminal) => Ok(Live { terminal }),
            Err(error) => {
                disable_raw_mode()?;
                Err(error)
            }
        }
    }
}

impl Live {
    /// A line that is longer than the terminal is wide goes on in the next.
    fn say(&mut self, line: &str) -> io::Result<()> {
        let width = usize::from(self.terminal.size()?.width.max(1));
        let chars: Vec<char> = line.chars().collect();
        for part in chars.chunks(width) {
            let part = Line::from(part.iter().collect::<String>());
            self.terminal.insert_before(1, |buffer| Paragraph::new(part).render(buffer.area, buffer))?;
        }
        Ok(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = self.terminal.show_cursor();
        let _ = disable_raw_mode();
        let _ = writeln!(io::stdout());
    }
}

/// Hears keys until nobody cares.
fn listen(wishes: &mpsc::Sender<Wish>) {
    while !wishes.is_closed() {
        let key = match event::poll(KEY_POLL) {
            Ok(true) => event::read(),
            Ok(false) => continue,
            Err(_) => return,
        };
        if let Ok(Event::Key(key)) = key
            && let Some(wish) = wish(key)
            && wishes.blocking_send(wish).is_err()
        {
            return;
        }
    }
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind != KeyEventKind::Press {
        return None;
    }
    match (key.code, key.modifiers) {
        (KeyCode::Char('c' | 'd'), KeyModifiers::CONTROL) | (KeyCode::Char('q') | KeyCode::Esc, _) => {
            Some(Wish::End)
        }
        (KeyCode::Char('b'), _) => Some(Wish::Lesson(Lesson::DeadReplica)),
        (KeyCode::Char('k'), _) => Some(Wish::Lesson(Lesson::KillControlPlane)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_the_demo_or_ask_for_a_lesson() {
        let key = |code, modifiers| wish(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Wish::End));
        assert_eq!(key(KeyCode::Char('b'), KeyModifiers::NONE), Some(Wish::Lesson(Lesson::DeadReplica)));
        assert_eq!(key(KeyCode::Char('k'), KeyModifiers::NONE), Some(Wish::Lesson(Lesson::KillControlPlane)));
    }
}
