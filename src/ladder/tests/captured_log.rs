//! Captures what is logged, so that tests can look at it.

use std::sync::Arc;

/// What is logged on this thread while the guard lives.
pub(super) fn capture_log() -> (Arc<std::sync::Mutex<Vec<u8>>>, (tracing::subscriber::DefaultGuard, tracing::Dispatch))
{
    struct Writer(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Writer {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let to = log.clone();
    let all = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Writer(to.clone())).finish();
    let guard = tracing::subscriber::set_default(all);
    // While there is only one dispatcher, `tracing` disables a log line for all threads if the first thread that
    // reaches the line, that of another test, has no dispatcher. With two dispatchers it asks both.
    let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    (log, (guard, second))
}

#[test]
fn a_line_that_another_thread_reaches_first_is_captured() {
    let (log, _guard) = capture_log();
    let say = || tracing::warn!("a line of two threads");
    std::thread::spawn(say).join().unwrap();
    say();
    assert_eq!(String::from_utf8_lossy(&log.lock().unwrap()).matches("a line of two threads").count(), 1);
}
