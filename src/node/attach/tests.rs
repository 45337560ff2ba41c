//! Hostile and clumsy clients, and folders that are not to be trusted.
