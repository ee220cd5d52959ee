FROM python:3.13.15-slim-trixie AS build
WORKDIR /build
RUN python -m venv /opt/lab
COPY requirements-report.lock .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/lab/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements-report.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY broker broker
COPY nodes nodes
COPY lab lab
RUN /opt/lab/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation . \
    && /opt/lab/bin/python -m pip uninstall --quiet --yes pip setuptools

FROM python:3.13.15-slim-trixie
COPY --from=build /opt/lab /opt/lab
# A replica's volume inherits this directory's owner.
RUN install -d -o 10001 -g 10001 /data
USER 10001:10001
WORKDIR /data
ENV PATH=/opt/lab/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp \
    LAB_HOST=0.0.0.0 LAB_PORT=8000 LAB_DATA_DIR=/data
# Uses bash because starting Python every two seconds would cost more CPU time than the node itself.
HEALTHCHECK --interval=2s --timeout=5s --start-period=15s --retries=5 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/$LAB_PORT && printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["python", "-m", "nodes"]
