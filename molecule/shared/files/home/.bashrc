# Sourced for every command that comes in over SSH. Each line breaks installs that trust it.
export PYTHONPATH=:$HOME/mine/python
export LD_LIBRARY_PATH=:$HOME/mine/lib
export PYTHONNOUSERSITE= PYTHONUSERBASE=$HOME/mine
export PIP_USER=1 PIP_TARGET=$HOME/mine/target PIP_INDEX_URL=http://127.0.0.1:9/
export CONDA_ENVS_PATH=$HOME/mine/envs CONDA_PKGS_DIRS=$HOME/mine/pkgs
export CFLAGS=-no-such-option LDFLAGS=-no-such-option
export MPLBACKEND=TkAgg
