//! Joins manifest, image, driver and guest into running spacecores.

pub mod folder;
