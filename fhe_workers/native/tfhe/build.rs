fn main() {
    // Elsewhere than on Linux, the linker must be told that Python's symbols come later.
    pyo3_build_config::add_extension_module_link_args();
}
