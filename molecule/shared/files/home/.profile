# Sourced by login shells. (In ~/.bashrc it would break the system's own Python.)
. "$HOME/.bashrc"
export PYTHONHOME=$HOME/mine
