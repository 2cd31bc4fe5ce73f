"""What the tasks beside it ask of texts."""

import math


def halves(articles):
    """Returns questions of a data set of articles: which second half follows a first half? Three are of other ones."""
    articles = articles.filter(lambda article: len(article["text"]) >= 40)
    split = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in articles["text"]]

    def question(_, i):
        others = [split[(i + k) % len(split)][1] for k in range(1, 4)]
        answer = i % 4
        return {"first": split[i][0], "halves": [*others[:answer], split[i][1], *others[answer:]], "answer": answer}

    return articles.map(question, with_indices=True)


def bits(document, results):
    """Returns the metrics of a text from its nats: its bits, whose means are compared between languages where texts are
    parallel, and what bits per byte are of."""
    (nats,) = results
    size = len(document["text"].encode())
    return {"bits": -nats / math.log(2), "bits_per_byte": (nats, size)}
