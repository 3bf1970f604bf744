"""What the server's files take now, for who asks."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from atelier.config import Config
from registry.disk.disk_scan import look_at
from registry.disk.disk_usage import DiskUse, disk_use
from registry.hub.downloads import Downloads
from registry.instances.instance_pool import Pool
from registry.models.model_catalogue import Catalogue


class Disk:
    """Looks at the files on a thread of its own, one look at a time: launches need the usual threads."""

    def __init__(self, config: Config, catalogue: Catalogue, downloads: Downloads, pool: Pool) -> None:
        self._config = config
        self._catalogue = catalogue
        self._downloads = downloads
        self._pool = pool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")

    async def use(self) -> DiskUse:
        models, stop = self._catalogue.all(), threading.Event()
        try:
            loop = asyncio.get_running_loop()
            look = await loop.run_in_executor(self._thread, look_at, self._config, models, stop)
        finally:
            stop.set()  # who asked may have left: the thread need not go on
        return disk_use(look, self._config, models, self._downloads.all(), self._pool.instance_ids())
