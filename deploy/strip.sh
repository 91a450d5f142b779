#!/bin/sh
# Last step of the image's build: removes what no service needs, above all what would help an intruder.
set -eu

packages="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# Installers, the system's and ours. Flower uses uv only where packages may be installed at run time.
pip uninstall --quiet --yes uv pip setuptools
find /usr -xdev -type d \( -name pip -o -name 'pip-*' -o -name setuptools -o -name 'setuptools-*' -o -name wheel \
    -o -name 'wheel-*' -o -name ensurepip -o -name python-wheels \) -prune -exec rm -rf {} +
find /usr /opt -xdev -path '*/bin/pip*' -delete

# Tests, headers and static libraries of packages: for those who develop or compile.
find "$packages" -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.a' -o -name '*.h' -o -name '*.hpp' -o -name '*.pyx' -o -name '*.pxd' \) -delete
find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete
rm -rf /usr/include /usr/local/include /opt/venv/include

# Package lists, caches, documentation. The package database stays, for scanners that ask what is installed.
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* \
    /root/.cache /build /tmp/* /var/tmp/*

# Nobody becomes another user or writes outside /tmp.
find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
find / -xdev -type d -perm -0002 ! -path /tmp -exec chmod o-w {} +
