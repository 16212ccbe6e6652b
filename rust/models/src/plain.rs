// SPDX-License-Identifier: GPL-2.0

//! Memory that is read and written without any ordering of its own, as C's and the
//! CPU's is here: two accesses that nothing orders are an error, and loom finds them.

use loom::cell::UnsafeCell;

pub struct Plain<T>(UnsafeCell<T>);

impl<T> Plain<T> {
    pub fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub fn look<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        // SAFETY: Within a model, where loom panics before it gives the pointer if
        // anybody may be writing meanwhile.
        self.0.with(|value| f(unsafe { &*value }))
    }

    pub fn change<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: As above, if anybody may be reading or writing.
        self.0.with_mut(|value| f(unsafe { &mut *value }))
    }

    pub fn set(&self, value: T) {
        self.change(|its| *its = value);
    }
}

impl<T: Copy> Plain<T> {
    pub fn get(&self) -> T {
        self.look(|value| *value)
    }
}
