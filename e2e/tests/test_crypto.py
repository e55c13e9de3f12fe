"""Every dialect and algorithm, each one by one against a Samba that requires it."""

import hashlib
import os

import pytest

from lab import CRYPTO

BIG_MIB = 64
LAB = {'big_mib': BIG_MIB}

# What the server was told to require, and what the wire must show: dialect, signing, cipher.
EXPECTED = {
    '2.1-hmac-sha256': ('2.1', 'HMAC-SHA256', None),
    '3.0-cmac': ('3.0', 'AES-128-CMAC', None),
    '3.0.2-cmac': ('3.0.2', 'AES-128-CMAC', None),
    '3.0-aes-128-ccm': ('3.0', None, 'AES-128-CCM'),
    '3.0.2-aes-128-ccm': ('3.0.2', None, 'AES-128-CCM'),
    '3.1.1-hmac-sha256': ('3.1.1', 'HMAC-SHA256', None),
    '3.1.1-cmac': ('3.1.1', 'AES-128-CMAC', None),
    '3.1.1-gmac': ('3.1.1', 'AES-128-GMAC', None),
    '3.1.1-aes-128-ccm': ('3.1.1', None, 'AES-128-CCM'),
    '3.1.1-aes-128-gcm': ('3.1.1', None, 'AES-128-GCM'),
    '3.1.1-aes-256-ccm': ('3.1.1', None, 'AES-256-CCM'),
    '3.1.1-aes-256-gcm': ('3.1.1', None, 'AES-256-GCM'),
}


@pytest.fixture(scope='module')
def credentials(lab):
    """A credentials file, as the client's processes see it."""
    path = '/run/credentials'
    with open(lab.path('client', path), 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write('username=dfsuser\npassword=dfspass\n')
    return path


@pytest.fixture(scope='module')
def big_sha256(lab):
    with open(lab.data('t1', 'share/big.bin'), 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def get_sha256(lab, dfsctl, credentials, *options):
    """sha256 of //t1/share/big.bin as dfsctl reads it."""
    run = lab.run_in('client', [
        'bash', '-c', 'set -o pipefail; "$@" | sha256sum', 'bash', dfsctl, 'get',
        '//t1/share/big.bin', '--credentials', credentials, *options
    ])
    return run.stdout.split()[0]


@pytest.mark.parametrize('variant', EXPECTED)
def test_reads_what_the_server_requires(lab, program, credentials, big_sha256, variant):
    dialect, signing, cipher = EXPECTED[variant]
    lab.configure('t1', CRYPTO[variant])
    options = ['-o', 'vers=' + dialect]
    with lab.capture('t1') as seen:
        assert get_sha256(lab, program('dfsctl'), credentials, *options) == big_sha256
    negotiated = seen.negotiated()[-1]
    assert negotiated.dialect == dialect
    if signing is not None:
        assert negotiated.signing == signing
    if cipher is not None and dialect == '3.1.1':
        assert negotiated.cipher == cipher
    if cipher is not None:
        assert 'READ' not in seen.commands(), 'a READ was seen in the clear'


def test_every_variant_of_the_lab_is_tested():
    assert set(EXPECTED) == set(CRYPTO) - {'plain'}


def test_wrong_password_is_one_clear_error(lab, program):
    path = '/run/wrong-credentials'
    with open(lab.path('client', path), 'w', opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write('username=dfsuser\npassword=not-the-password\n')
    lab.configure('t1', {})
    run = lab.run_in('client', [program('dfsctl'), 'ls', '//t1/share', '--credentials', path],
                     check=False)
    assert run.returncode == 3  # docs/options.md
    assert len(run.stderr.splitlines()) == 1 and 'LOGON_FAILURE' in run.stderr
    assert 'not-the-password' not in run.stderr + run.stdout


def test_a_server_without_the_asked_dialect_is_one_clear_error(lab, program, credentials):
    lab.configure('t1', CRYPTO['2.1-hmac-sha256'])
    run = lab.run_in('client', [program('dfsctl'), 'ls', '//t1/share', '--credentials',
                                credentials], check=False)
    assert run.returncode == 11  # docs/options.md
    assert len(run.stderr.splitlines()) == 1 and 'dialect' in run.stderr
