# Fills HOME with settings that other people's installs break on. Run by `sh`.
mkdir -p ~/.config/pip ~/mine/python ~/mine/lib ~/.local/lib/python2.7/site-packages

# Sourced for every command that comes in over SSH.
cat >~/.bashrc <<'FILE'
export PYTHONPATH=:$HOME/mine/python
export LD_LIBRARY_PATH=:$HOME/mine/lib
export PYTHONNOUSERSITE= PYTHONUSERBASE=$HOME/mine
export PIP_USER=1 PIP_TARGET=$HOME/mine/target PIP_INDEX_URL=http://127.0.0.1:9/
export CONDA_ENVS_PATH=$HOME/mine/envs CONDA_PKGS_DIRS=$HOME/mine/pkgs
export CFLAGS=-no-such-option LDFLAGS=-no-such-option
export MPLBACKEND=TkAgg
case $(hostname) in
  server3) umask 077 ;;
  *) umask 000 ;;
esac
FILE

# Sourced by login shells. (In .bashrc, PYTHONHOME would break the system's own Python.)
cat >~/.profile <<'FILE'
. "$HOME/.bashrc"
export PYTHONHOME=$HOME/mine
FILE

cat >~/.condarc <<'FILE'
channels: [http://127.0.0.1:9/channel]
default_channels: [http://127.0.0.1:9/channel]
always_copy: true
always_yes: false
create_default_packages: [no_such_package]
envs_dirs: [~/mine/envs]
pkgs_dirs: [~/mine/pkgs]
FILE

cat >~/.pydistutils.cfg <<'FILE'
[install]
user = 1
prefix = /nowhere
[build_ext]
include_dirs = /nowhere
compiler = no_such_compiler
FILE

cat >~/.config/pip/pip.conf <<'FILE'
[global]
index-url = http://127.0.0.1:9/
[install]
user = true
FILE

for module in numpy yaml cv2 pycocotools; do
  echo "raise ImportError('This is not the stack\'s: ' + __file__)" >~/mine/python/$module.py
done
# What `pip install --user` leaves behind.
echo "raise ImportError('This is not the stack\'s: ' + __file__)" >~/.local/lib/python2.7/site-packages/numpy.py
for library in libcudnn.so.7 libnccl.so.2; do
  echo "not a library" >~/mine/lib/$library
done
