"""watch: where it starts, what it shows, how it ends."""

import asyncio

from edgekube.api.catalog import CONFIG_MAP
from edgekube.apiserver import stream
from edgekube.apiserver.identity import User
from edgekube.apiserver.verbs.watching import MIN_SECONDS, lasts
from tests.kit.api import CONFIG_MAPS, Api, Events, config_map


async def test_from_now_on():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    async with api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={api.store.revision}") as events:
        await api.ok("POST", CONFIG_MAPS, config_map("b"))
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": "2"}))
        gone = await api.ok("DELETE", f"{CONFIG_MAPS}/b")
        assert gone["status"] == "Success"
        assert [await events.brief() for _ in range(3)] == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_deleted_events_carry_the_revision_of_the_deletion():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    async with api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={api.store.revision}") as events:
        await api.ok("DELETE", f"{CONFIG_MAPS}/a")
        event = await events.next()
        assert event["object"]["metadata"]["resourceVersion"] == str(api.store.revision)
        assert event["object"]["data"] == {"k": "v"}


async def test_state_first():
    api = Api()
    for name in ("a", "b"):
        await api.ok("POST", CONFIG_MAPS, config_map(name))
    for revision in ("", "0"):
        async with api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={revision}") as events:
            assert [await events.brief() for _ in range(2)] == [("ADDED", "a"), ("ADDED", "b")]


async def test_initial_events_end_with_a_bookmark():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with api.watch(f"{CONFIG_MAPS}?{query}") as events:
        assert await events.brief() == ("ADDED", "a")
        mark = await events.next()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["kind"] == "ConfigMap"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["object"]["metadata"]["resourceVersion"] == str(api.store.revision)
        await api.ok("POST", CONFIG_MAPS, config_map("b"))
        assert await events.brief() == ("ADDED", "b")


async def test_options_of_watch_lists_are_checked():
    api = Api()
    assert (await api("GET", f"{CONFIG_MAPS}?watch=1&sendInitialEvents=true"))[0] == 422
    assert (await api("GET", f"{CONFIG_MAPS}?watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan"))[0] == 422


async def test_resuming_gives_every_event_once():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    start = api.store.revision
    for number in range(20):
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": str(number)}))
    async with api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={start}") as events:
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": "20"}))
        assert [(await events.next())["object"]["data"]["k"] for _ in range(21)] == [str(number) for number in range(21)]


async def test_history_that_is_gone_is_an_error_event():
    api = Api(history=10)
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    start = api.store.revision
    for number in range(50):
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": str(number)}))
    async with api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={start}") as events:
        event = await events.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert events.closed.is_set()


async def test_objects_enter_and_leave_a_selection():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a", {"k": "old"}))
    async with api.watch(f"{CONFIG_MAPS}?watch=1&labelSelector=on&resourceVersion={api.store.revision}") as events:
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": "in"}, labels={"on": ""}))
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": "still"}, labels={"on": ""}))
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": "out"}))
        await api.ok("DELETE", f"{CONFIG_MAPS}/a")
        await api.ok("POST", CONFIG_MAPS, config_map("b", labels={"on": ""}))
        got = [await events.next() for _ in range(4)]
        assert [(event["type"], event["object"]["data"]["k"]) for event in got] == [
            ("ADDED", "in"), ("MODIFIED", "still"), ("DELETED", "still"), ("ADDED", "v"),
        ]  # fmt: skip
        assert int(got[2]["object"]["metadata"]["resourceVersion"]) > int(got[1]["object"]["metadata"]["resourceVersion"])


async def test_namespaces_and_names():
    api = Api()
    async with api.watch("/api/v1/namespaces/other/configmaps?watch=1") as other, api.watch("/api/v1/configmaps?watch=1") as all_of_them:
        await api.ok("POST", CONFIG_MAPS, config_map("a"))
        await api.ok("POST", "/api/v1/namespaces/other/configmaps", config_map("b"))
        assert await other.brief() == ("ADDED", "b")
        assert [await all_of_them.brief() for _ in range(2)] == [("ADDED", "a"), ("ADDED", "b")]
    async with api.watch("/api/v1/watch/namespaces/default/configmaps/a") as one:
        assert await one.brief() == ("ADDED", "a")


async def test_tables_and_metadata():
    api = Api()
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    partial = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    async with api.watch(f"{CONFIG_MAPS}?watch=1", table) as rows, api.watch(f"{CONFIG_MAPS}?watch=1", partial) as heads:
        await api.ok("POST", CONFIG_MAPS, config_map("a"))
        assert (await rows.next())["object"]["rows"][0]["cells"][0] == "a"
        assert (await heads.next())["object"]["kind"] == "PartialObjectMetadata"


async def test_a_timeout_ends_the_watch(monkeypatch):
    api = Api()
    async with api.watch(f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1") as events:
        async with asyncio.timeout(5):
            await events.closed.wait()


async def test_bookmarks_move_the_revision_on(monkeypatch):
    monkeypatch.setattr(stream, "BOOKMARK_EVERY", 0.02)
    api = Api()
    async with api.watch(f"{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true") as events, api.watch(f"{CONFIG_MAPS}?watch=1") as plain:
        await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
        event = await events.next()
        while event["object"]["metadata"]["resourceVersion"] != str(api.store.revision):
            event = await events.next()
        assert event["type"] == "BOOKMARK"
        assert plain.queue.empty()


async def test_who_does_not_read_is_told_and_others_go_on(monkeypatch):
    monkeypatch.setattr(stream, "KEEP_LINES", 50)
    monkeypatch.setattr(stream, "RETRY_SLOW", 0.01)
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    query = f"{CONFIG_MAPS}?watch=1&resourceVersion={api.store.revision}"
    async with api.watch(query) as slow, api.watch(query) as quick:
        slow.pending = stream.SLOW + 1
        for number in range(120):
            await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": str(number)}))
        for number in range(120):
            assert (await quick.next())["object"]["data"]["k"] == str(number)
        event = await slow.next()
        assert (event["type"], event["object"]["reason"]) == ("ERROR", "Expired")
        assert slow.closed.is_set()


async def test_who_reads_again_gets_everything(monkeypatch):
    monkeypatch.setattr(stream, "RETRY_SLOW", 0.01)
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    async with api.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={api.store.revision}") as events:
        events.pending = stream.SLOW + 1
        for number in range(30):
            await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a", {"k": str(number)}))
        assert events.queue.empty()
        events.pending = 0
        assert [(await events.next())["object"]["data"]["k"] for _ in range(30)] == [str(number) for number in range(30)]


async def test_many_watchers_share_the_work():
    api = Api()
    responses = []
    for _ in range(300):
        response = await api.server.handle(api.request("GET", f"{CONFIG_MAPS}?watch=1"))
        events = Events()
        response.start(events)
        responses.append((response, events))
    for number in range(10):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{number}"))
    for _, events in responses:
        assert [await events.brief() for _ in range(10)] == [("ADDED", f"c{number}") for number in range(10)]
    for response, _ in responses:
        response.stop()
    assert not api.server.hub._feeds


async def test_local_watch_yields_the_same():
    api = Api()
    found = await api.client.list(CONFIG_MAP, "default")
    async with api.client.watch(CONFIG_MAP, "default", revision=found.revision, labels="on") as batches:
        await api.ok("POST", CONFIG_MAPS, config_map("a", labels={"on": "1"}))
        await api.ok("PUT", f"{CONFIG_MAPS}/a", config_map("a"))
        got = []
        async with asyncio.timeout(5):
            async for batch in batches:
                got += [(change.type.value, change.item.name) for change in batch]
                if len(got) == 2:
                    break
    assert got == [("ADDED", "a"), ("DELETED", "a")]


async def test_joining_while_lines_go_out_doubles_nothing():
    api = Api()
    opened = []

    async def join():
        query = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
        response = await api.server.handle(api.request("GET", f"{CONFIG_MAPS}?{query}"))
        events = Events()
        events.start_revision = api.store.revision
        response.start(events)
        opened.append((response, events))

    for _ in range(170):
        await join()
    for number in range(60):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{number:02}"))
        await join()
        await asyncio.sleep(0)
    await api.ok("POST", CONFIG_MAPS, config_map("last"))
    for response, events in opened:
        names, revisions = [], []
        while not names or names[-1] != "last":
            event = await events.next()
            names.append(event["object"]["metadata"]["name"])
            revisions.append(int(event["object"]["metadata"]["resourceVersion"]))
        assert revisions == list(range(events.start_revision + 1, api.store.revision + 1))
        response.stop()


async def test_an_object_that_cannot_be_shown_ends_its_watches_only(monkeypatch):
    from edgekube.apiserver.watchlines import Entry

    api = Api()
    line = Entry.line

    def broken(self, spec, clock):
        if not spec.labels.empty:
            raise ValueError("broken")
        return line(self, spec, clock)

    monkeypatch.setattr(Entry, "line", broken)
    async with api.watch(f"{CONFIG_MAPS}?watch=1&labelSelector=a") as bad, api.watch(f"{CONFIG_MAPS}?watch=1") as good:
        await api.ok("POST", CONFIG_MAPS, config_map("a"))
        assert await good.brief() == ("ADDED", "a")
        async with asyncio.timeout(5):
            await bad.closed.wait()
        await api.ok("POST", CONFIG_MAPS, config_map("b"))
        assert await good.brief() == ("ADDED", "b")


def test_a_nodes_watches_are_not_for_ever():
    node, ann = User("system:node:pi", ("system:nodes",)), User("ann")
    assert lasts(ann, 10**9) == 10**9
    assert lasts(node, 10**9) <= 2 * MIN_SECONDS
    assert lasts(node, 5) == lasts(ann, 5) == 5
    assert MIN_SECONDS <= lasts(node, 0) <= 2 * MIN_SECONDS
