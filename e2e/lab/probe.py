"""One TCP connection to a server, seen from the client: what does the server do with it?"""

import socket
import struct

# A NEGOTIATE request for SMB 2.1 alone ([MS-SMB2] 2.2.3): any server may answer it, with any status.
_HEADER = struct.pack('<4sHHIHHIIQIIQ16s', b'\xfeSMB', 64, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, b'\0' * 16)
_BODY = struct.pack('<HHHHI16sQH', 36, 1, 1, 0, 0, b'\1' * 16, 0, 0x0210)
NEGOTIATE = struct.pack('>I', len(_HEADER + _BODY)) + _HEADER + _BODY


class Probe:
    """connect() and ask() answer 'ok', 'refused', 'reset', 'closed', 'unreachable' or 'silent'."""

    def __init__(self, lab, host):
        self._address = (lab.address(host), 445)
        self._socket = lab.in_network('client', lambda: socket.socket(socket.AF_INET))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _receive(self, length):
        """`length` bytes, or none where the connection ends first."""
        text = b''
        while len(text) < length:
            more = self._socket.recv(length - len(text))
            if not more:
                return b''
            text += more
        return text

    def _try(self, seconds, action):
        self._socket.settimeout(seconds)
        try:
            return action()
        except ConnectionRefusedError:
            return 'refused'
        except ConnectionResetError:
            return 'reset'
        except BrokenPipeError:
            return 'closed'
        except (socket.timeout, TimeoutError):
            return 'silent'
        except OSError as error:
            return 'unreachable' if error.errno in (101, 113) else f'errno {error.errno}'

    def connect(self, seconds=1.0):
        return self._try(seconds, lambda: self._socket.connect(self._address) or 'ok')

    def ask(self, seconds=1.0, send=True):
        """Sends NEGOTIATE (or nothing) and waits for one whole answer."""
        def exchange():
            if send:
                self._socket.sendall(NEGOTIATE)
            length = self._receive(4)
            answer = self._receive(int.from_bytes(length, 'big') & 0xffffff) if length else b''
            return 'ok' if answer.startswith(b'\xfeSMB') else 'closed'
        return self._try(seconds, exchange)
