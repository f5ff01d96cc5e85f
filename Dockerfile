# One image for every service. Build: docker build -t streamgate .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/runtime.lock requirements/runtime.lock
RUN python -m venv /opt/streamgate \
 && /opt/streamgate/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/runtime.lock
COPY . .
RUN /opt/streamgate/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/streamgate/bin/python -m compileall -q /opt/streamgate/lib

FROM python:3.11-slim-bookworm
COPY --from=build /opt/streamgate /opt/streamgate
RUN useradd --uid 10001 --create-home --home-dir /var/lib/streamgate streamgate
USER 10001
WORKDIR /var/lib/streamgate
ENV PATH=/opt/streamgate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 STREAMGATE_DATA_DIR=/var/lib/streamgate/data STREAMGATE_HOST=0.0.0.0
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
ENTRYPOINT ["streamgate"]
CMD ["serve", "--mode", "monolith"]
