"""A line a minute where there is no terminal."""

from deltaserver.cli.shell.terminal import MinuteLines, TaskLines


def test_a_line_a_minute_and_no_more():
    now, told = [0.0], []
    lines = MinuteLines(told.append, lambda: now[0])
    for second in range(0, 601, 5):
        now[0] = float(second)
        lines.progress("labels", second / 1200)
    assert len(told) == 10
    assert told[0] == "labels: 5 %, 19 min left"
    assert told[-1] == "labels: 50 %, 10 min left"


def test_short_work_is_silent():
    told = []
    lines = MinuteLines(told.append, lambda: 0.0)
    for k in range(100):
        lines.progress("assembling", k / 100)
    assert told == []


def test_tasks_as_with_a_bar():
    now, told = [0.0], []
    with TaskLines(MinuteLines(told.append, lambda: now[0])) as progress:
        frames = progress.add_task("frames", total=10, completed=2)
        labels = progress.add_task("labels", total=None)
        for second in (0.0, 59.0, 61.0, 122.0):
            now[0] = second
            progress.update(frames, advance=1)
        now[0] = 300.0
        progress.update(labels, total=30, completed=3, description="labels (1 set aside)")
    assert told == [
        "frames of 10: 50 %, 3 min left",  # a fifth since it began, at 30 %
        "frames of 10: 60 %, 3 min left",
        "labels (1 set aside) of 30: 10 %",
    ]


def test_words_that_change_begin_nothing_anew():
    now, told = [0.0], []
    lines = MinuteLines(told.append, lambda: now[0])
    for minute in range(6):
        now[0] = 60.0 * minute
        lines.progress(f"labels ({minute} set aside) of 100", minute / 10)
    assert told[-1] == "labels (5 set aside) of 100: 50 %, 5 min left"
    now[0] = 360.0
    lines.progress("labels, again", 0.1)  # less than before: other work
    assert told[-1] == "labels, again: 10 %"
