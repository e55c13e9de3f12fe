#!/ usr / bin / python3
"""The program scripted-smb-server, asked by Samba's smbclient: somebody else's opinion of what our
scripted server, and so our wire code, says. Usage: scripted_smb_server_test.py PROGRAM"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = None
CONFIG = '''
listen 127.0.0.1:0
ntlm alice secret WORKGROUP
share data
  file dir/file 3000000
  files many/x 3000 5
  text who "t1 says so"
share dfs root
  link docs 127.77.0.1/data
'''


class ScriptedSmbServerTest(unittest.TestCase):

    def setUp(self):
        if shutil.which('smbclient') is None:
            self.skipTest('no smbclient')
        self.folder = tempfile.TemporaryDirectory()
        config = self.path('config')
        with open(config, 'w', encoding='utf-8') as file:
            file.write(CONFIG)
        self.server = subprocess.Popen([PROGRAM, config], stdin=subprocess.PIPE, text=True,
                                       stdout=subprocess.PIPE)
        word, address = self.server.stdout.readline().split()
        self.assertEqual(word, 'listening')
        self.port = address.rsplit(':', 1)[1]

    def tearDown(self):
        self.server.kill()
        self.server.communicate()
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def tell(self, line):
        self.server.stdin.write(line + '\n')
        self.server.stdin.flush()
        said = []
        while not said or not (said[-1] == 'ok' or said[-1].startswith('error')):
            said.append(self.server.stdout.readline().rstrip('\n'))
        return said

    def counts(self):
        said = self.tell('counts')
        self.assertIn('violations 0', said, said)
        return dict(line.split() for line in said[:-1])

    def smbclient(self, commands, *options, share='data', succeeds=True):
        run = subprocess.run(
            ['smbclient', f'//127.0.0.1/{share}', '-p', self.port, '-U', 'WORKGROUP/alice%secret',
             *options, '-c', commands], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(run.returncode == 0, succeeds, run.stdout + run.stderr)
        return run.stdout + run.stderr

    def test_reads_signed_and_encrypted_in_every_dialect(self):
        for protocol in 'SMB2_10', 'SMB3_00', 'SMB3_02', 'SMB3_11':
            for protection in 'sign', 'encrypt':
                if protocol == 'SMB2_10' and protection == 'encrypt':
                    continue
                with self.subTest(protocol=protocol, protection=protection):
                    self.smbclient(f'get dir/file {self.path("file")}; get who {self.path("who")}',
                                   '-m', protocol, f'--client-protection={protection}',
                                   f'--option=client min protocol={protocol}')
                    self.assertEqual(os.path.getsize(self.path('file')), 3000000)
                    with open(self.path('who'), encoding='utf-8') as file:
                        self.assertEqual(file.read(), 't1 says so')
        self.counts()

    def test_lists_a_large_folder(self):
        listing = self.smbclient('ls many/*')
        self.assertEqual(listing.count('  x'), 3000)
        self.counts()

    def test_refers_to_a_link(self):
#smbclient goes to port 445 of the target, where nobody is.
        said = self.smbclient('cd docs', share='dfs', succeeds=False)
        self.assertIn('docs', said)
        self.assertGreater(int(self.counts()['referrals']), 0)

    def test_rules_and_errors(self):
        self.assertEqual(self.tell('rule command=CREATE path=who status=STATUS_ACCESS_DENIED'), ['ok'])
        said = self.smbclient('get who /dev/null', succeeds=False)
        self.assertIn('ACCESS_DENIED', said)
        self.assertTrue(self.tell('frobnicate')[0].startswith('error: '))
        self.assertEqual(self.tell('clear'), ['ok'])
        self.smbclient(f'get who {self.path("who")}')
        self.assertEqual(self.counts()['sessions'], '0')

    def test_wrong_password(self):
        run = subprocess.run(['smbclient', '//127.0.0.1/data', '-p', self.port, '-U',
                              'WORKGROUP/alice%wrong', '-c', 'ls'], capture_output=True, text=True,
                             timeout=60, check=False)
        self.assertIn('LOGON_FAILURE', run.stdout + run.stderr)

    def test_configuration_errors_name_the_line(self):
        with open(self.path('bad'), 'w', encoding='utf-8') as file:
            file.write('listen 127.0.0.1:0\nshare a\ncolour blue\n')
        run = subprocess.run([PROGRAM, self.path('bad')], capture_output=True, text=True, timeout=60,
                             check=False)
        self.assertEqual(run.returncode, 2)
        self.assertIn('line 3', run.stderr)


if __name__ == '__main__':
    PROGRAM = sys.argv.pop(1)
    unittest.main()
