//! One input in, what it makes necessary out.

use jiff::Timestamp;

use super::exchange::{End, Input, Output};
use super::state::Machine;
use crate::workflow::Mode;

impl Machine {
    /// Takes in something that happened at a time; what to do now, in this order. After [`Output::End`] nothing comes.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        if self.end.is_none() {
            self.now = self.now.max(now.checked_add(self.ahead).unwrap_or(now));
            self.take_in(input);
            self.caller_time(now);
            self.proceed();
        }
        std::mem::take(&mut self.out)
    }

    fn take_in(&mut self, input: Input) {
        self.expects_message &= matches!(input, Input::MailboxClosed(_));
        match input {
            Input::Begin { frozen, draining } => (self.frozen, self.draining) = (frozen, draining),
            Input::Time => {}
            Input::Called { call, heard } => {
                self.calls = self.calls.saturating_sub(1);
                self.record(call, heard);
            }
            Input::Appended(result) => self.appended(result),
            Input::Order { ticket, order, by, owned } => self.order(ticket, order, by, owned),
            Input::StoreOrders { orders, owned } => self.orders_read(orders, owned),
            Input::OrderSettled => self.looks = self.looks.saturating_sub(1),
            Input::Lock { look, seen } => self.lock_seen(look, seen),
            Input::Child { child, seen } => self.child_seen(child, seen),
            Input::ChildTold { child, delivery } => self.child_told(child, delivery),
            Input::ChildEnded(end) => self.child_ended(end),
            Input::WaitsBelow => self.waits_below = true,
            Input::Changed { taken_again } => self.changed(taken_again),
            Input::Freeze(frozen) => self.frozen = frozen,
            Input::Drain => self.draining = true,
            Input::CallerGone => self.caller_gone = true,
            Input::MailboxClosed(closed) => self.mailbox_closed(closed),
        }
    }

    /// Does all that can be done now.
    fn proceed(&mut self) {
        self.caller_left();
        if self.end.is_none() {
            if self.closing.is_none() {
                self.advance();
                self.release();
                self.look_outside();
            }
            self.settle();
            self.flush();
            self.tell();
        }
        match self.end {
            Some(end) => self.leave(end),
            None => self.arm_timer(),
        }
    }

    /// Nobody looks at a rehearsal that nobody waits for, and a process that ends does not wait for an answer that
    /// nobody hears.
    fn caller_left(&mut self) {
        if !self.caller_gone || self.caller.is_none() {
            return;
        }
        if self.run.mode() == Mode::Rehearse {
            self.end = self.end.or(Some(End::Discarded));
        } else if self.draining {
            self.caller = None;
        }
    }

    /// Hands in what is pending, where somebody waits for it.
    fn flush(&mut self) {
        // While it is not known whether the mailbox closes, nobody may be told that the run is nobody's.
        let undecided = self.closing.is_some() && !self.mailbox_closed;
        if self.end.is_some() || undecided || self.need <= self.log.stored() {
            return;
        }
        let release = self.mailbox_closed && self.needs_nobody();
        let (ids, now) = (&mut self.ids, self.now);
        if let Some(append) = self.log.next(&self.run, release, || ids.next(now)) {
            self.out.push(Output::Append(append, std::time::Duration::ZERO));
        }
    }

    fn arm_timer(&mut self) {
        let wake = self.wake.filter(|_| self.closing.is_none());
        let caller = self.caller.filter(|_| self.late.is_none()).map(|caller| caller.until);
        let timer = [wake, caller].into_iter().flatten().min();
        if timer != self.timer {
            self.timer = timer;
            self.out.push(Output::Timer(timer));
        }
    }
}
