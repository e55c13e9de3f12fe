#!/usr/bin/python3
"""A hop that passes bytes on late, for what the kernel has no queue for.

  slow_path.py LISTEN_ADDRESS TARGET_ADDRESS SECONDS

Listens on port 445; each byte takes SECONDS in each direction, however many are on the way.
"""

import asyncio
import sys

PORT = 445


async def carry(reader, writer, seconds):
    loop, late = asyncio.get_running_loop(), asyncio.Queue()

    async def deliver():
        while True:
            at, piece = await late.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while piece := await reader.read(1 << 16):
            late.put_nowait((loop.time() + seconds, piece))
    except OSError:
        pass
    late.put_nowait((loop.time() + seconds, b''))
    try:
        await delivery
    except OSError:
        pass


async def main():
    address, target, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

    async def accept(reader, writer):
        try:
            there_reader, there_writer = await asyncio.open_connection(target, PORT)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, there_writer, seconds), carry(there_reader, writer, seconds))

    async with await asyncio.start_server(accept, address, PORT) as server:
        print('listens', flush=True)
        await server.serve_forever()


if __name__ == '__main__':
    asyncio.run(main())
