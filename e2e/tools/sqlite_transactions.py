#!/usr/bin/python3
"""sqlite_transactions.py [--transactions N] [--journal MODE] [--lie] FOLDER...: one process per folder makes N
transactions in the database `accounts.db`, which must be the same one in all of them. Then SQLite's own check must
find nothing, no transaction that was acknowledged may be missing, and the accounts' sum must be what it was.

Exit code: 0 so it is; 1 it is not; 3 the journal mode was refused. Its last line is JSON.
--lie: takes one entry away before the check, which must be found.
"""

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import time

NAME = 'accounts.db'
ACCOUNTS, START = 20, 1000
BUSY_SECONDS = 60


def connect(folder, journal):
    base = sqlite3.connect(f'{folder}/{NAME}', timeout=BUSY_SECONDS, isolation_level=None)
    mode = base.execute(f'PRAGMA journal_mode={journal}').fetchone()[0]
    if mode != journal:
        print(f'journal_mode={journal} was refused: it is {mode}', file=sys.stderr)
        sys.exit(3)
    base.execute('PRAGMA synchronous=FULL')
    return base


def make(folder, journal):
    for suffix in ('', '-journal', '-wal', '-shm'):
        if os.path.exists(f'{folder}/{NAME}{suffix}'):
            os.unlink(f'{folder}/{NAME}{suffix}')
    base = connect(folder, journal)
    base.executescript('''BEGIN;
        CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
        CREATE TABLE entry(writer INTEGER, number INTEGER, note TEXT, PRIMARY KEY(writer, number));
        CREATE INDEX note_index ON entry(note);
        COMMIT;''')
    base.executemany('INSERT INTO account VALUES(?, ?)', [(n, START) for n in range(ACCOUNTS)])
    base.close()


def transact(folder, writer, transactions, journal):
    """The writing process. Says "ready", waits for its input to end, writes."""
    base = connect(folder, journal)
    draw = random.Random(writer)
    print('ready', flush=True)
    sys.stdin.read()
    for number in range(transactions):
        one, other, amount = draw.randrange(ACCOUNTS), draw.randrange(ACCOUNTS), draw.randrange(100)
        base.execute('BEGIN IMMEDIATE')
        base.execute('UPDATE account SET balance = balance - ? WHERE id = ?', (amount, one))
        base.execute('UPDATE account SET balance = balance + ? WHERE id = ?', (amount, other))
        base.execute('INSERT INTO entry VALUES(?, ?, ?)', (writer, number, 'x' * draw.randrange(400)))
        base.execute('ROLLBACK' if number % 10 == 9 else 'COMMIT')
    base.close()


def wrong_in(folder, writers, transactions, journal):
    found = []
    base = connect(folder, journal)
    check = base.execute('PRAGMA integrity_check').fetchall()
    if check != [('ok',)]:
        found.append(f'integrity_check: {check[:3]}')
    total = base.execute('SELECT sum(balance), count(*) FROM account').fetchone()
    if total != (ACCOUNTS * START, ACCOUNTS):
        found.append(f'the accounts have {total}')
    expected = [number for number in range(transactions) if number % 10 != 9]
    for writer in range(writers):
        rows = base.execute('SELECT number FROM entry WHERE writer = ? ORDER BY number', (writer,)).fetchall()
        if [row[0] for row in rows] != expected:
            found.append(f'writer {writer}: {len(rows)} entries of {len(expected)}')
    base.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('folders', nargs='+')
    parser.add_argument('--transactions', type=int, default=1000)
    parser.add_argument('--journal', default='delete', choices=['delete', 'truncate', 'persist', 'wal'])
    parser.add_argument('--lie', action='store_true')
    parser.add_argument('--writer', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.writer is not None:
        transact(options.folders[0], options.writer, options.transactions, options.journal)
        return 0
    make(options.folders[0], options.journal)
    writers = [subprocess.Popen([sys.executable, '-B', __file__, '--writer', str(number), '--journal', options.journal,
                                 '--transactions', str(options.transactions), folder],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
               for number, folder in enumerate(options.folders)]
    for writer in writers:
        writer.stdout.readline()
    began = time.monotonic()
    for writer in writers:
        writer.stdin.close()
    codes = [writer.wait() for writer in writers]
    seconds = time.monotonic() - began
    if options.lie:
        base = connect(options.folders[0], options.journal)
        base.execute('DELETE FROM entry WHERE writer = 0 AND number = 5')
        base.close()
    wrong = [f'writer {number} ended with code {code}' for number, code in enumerate(codes) if code]
    for folder in options.folders:
        try:
            wrong += [f'{folder}: {what}' for what in wrong_in(folder, len(writers), options.transactions, options.journal)]
        except sqlite3.Error as error:
            wrong.append(f'{folder}: {error}')
    for line in wrong[:20]:
        print(line)
    print(json.dumps({'writers': len(writers), 'transactions': options.transactions, 'wrong': len(wrong),
                      'seconds': round(seconds, 2)}))
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
