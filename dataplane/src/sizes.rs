//! How much memory the tasks of connections take, so that growth is seen when it happens.

use runtime::kernel::Kernel;

use crate::{downstream, listener, upstream};

/// The size of what a function of so many arguments returns.
macro_rules! size {
    ($name:ident: $($argument:ident),*) => {
        fn $name<$($argument,)* F: Future>(_: impl FnOnce($($argument),*) -> F) -> usize {
            size_of::<F>()
        }
    };
}

size!(of_2: A, B);
size!(of_4: A, B, C, D);
size!(of_5: A, B, C, D, E);

#[test]
fn tasks_of_connections_stay_small() {
    for (task, bytes, bytes_max) in [
        (
            "a downstream connection, before it is known what it speaks",
            of_4(listener::connection::<Kernel>),
            1280,
        ),
        ("an HTTP connection at rest", of_5(downstream::serve::<Kernel>), 1128),
        ("an idle upstream connection", of_2(upstream::watch_idle::<Kernel>), 64),
    ] {
        println!("{task}: {bytes} bytes");
        assert!(bytes <= bytes_max, "{task}: {bytes} bytes are more than {bytes_max}");
    }
}
